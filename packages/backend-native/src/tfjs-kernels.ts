// The tfjs kernels that matter for the time of a training step. Cases that C++ does not cover use tfjs's own CPU kernel.
import { backend_util, slice_util, util } from '@tensorflow/tfjs-core';
import type { Tensor, TensorInfo } from '@tensorflow/tfjs-core';
import { binaryOps } from './addon';
import { sizeOf } from './backend';
import type { NativeBackend } from './backend';
import type { NativeKernel } from './kernel';

const maxRank = 8;

/** Row-major strides, in elements. */
function stridesOf(shape: number[]): number[] {
  const strides = new Array<number>(shape.length);
  for (let axis = shape.length - 1, step = 1; axis >= 0; axis--) {
    strides[axis] = step;
    step *= shape[axis]!;
  }
  return strides;
}

/** Strides of a tensor broadcast to `shape`: 0 along axes that it lacks or that have size 1. */
function broadcastStrides(from: number[], shape: number[]): number[] {
  const own = stridesOf(from);
  const missing = shape.length - from.length;
  return shape.map((_, axis) => (axis < missing || from[axis - missing] === 1 ? 0 : own[axis - missing]!));
}

/** Merges neighbouring axes that can be traversed as one with every list of strides; the result has at least one axis. */
function collapse(shape: number[], ...strides: number[][]): { shape: number[]; strides: number[][] } {
  const out: number[] = [];
  const outStrides: number[][] = strides.map(() => []);
  shape.forEach((n, axis) => {
    if (n === 1) return;
    const last = out.length - 1;
    if (last >= 0 && strides.every((s, i) => outStrides[i]![last] === s[axis]! * n)) {
      out[last]! *= n;
      strides.forEach((s, i) => (outStrides[i]![last] = s[axis]!));
    } else {
      out.push(n);
      strides.forEach((s, i) => outStrides[i]!.push(s[axis]!));
    }
  });
  if (out.length > 0) return { shape: out, strides: outStrides };
  return { shape: [1], strides: strides.map(() => [1]) };
}

const isFloat = (...tensors: TensorInfo[]) => tensors.every(({ dtype }) => dtype === 'float32');

function binary(op: number, otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { a, b } = inputs as { a: TensorInfo; b: TensorInfo };
    const same = util.arraysEqual(a.shape, b.shape);
    const shape = same ? a.shape : backend_util.assertAndGetBroadcastShape(a.shape, b.shape);
    if (!isFloat(a, b) || shape.length > maxRank) return otherwise(inputs, attrs, backend);
    const joined = same
      ? { shape: [sizeOf(shape)], strides: [[1], [1]] }
      : collapse(shape, broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape));
    const y = backend.allocate(shape);
    const [aStrides, bStrides] = joined.strides as [number[], number[]];
    const [x, z] = [backend.floats(a), backend.floats(b)];
    if (y.values.length > 0) backend.addon.binary(op, x, aStrides, z, bStrides, joined.shape, y.values);
    return y.info;
  };
}

/** Copies between two strided views of `shape`. */
function copy(
  backend: NativeBackend,
  shape: number[],
  from: { values: Float32Array; offset: number; strides: number[] },
  to: { values: Float32Array; offset: number; strides: number[] },
): void {
  if (shape.includes(0)) return;
  const joined = collapse(shape, from.strides, to.strides);
  const [fromStrides, toStrides] = joined.strides as [number[], number[]];
  backend.addon.copy(from.values, from.offset, fromStrides, to.values, to.offset, toStrides, joined.shape);
}

/** A new tensor [shape] whose elements are those of x at `offset` and `strides`. */
function strided(
  backend: NativeBackend,
  x: TensorInfo,
  shape: number[],
  strides: number[],
  offset = 0,
): TensorInfo {
  const from = { values: backend.floats(x), offset, strides };
  return backend.made(shape, (values) =>
    copy(backend, shape, from, { values, offset: 0, strides: stridesOf(shape) }),
  );
}

function slice(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    if (!isFloat(x) || x.shape.length > maxRank) return otherwise(inputs, attrs, backend);
    const { begin, size } = attrs as { begin: number | number[]; size: number | number[] };
    const [starts, sizes] = slice_util.parseSliceParams(x, begin, size) as [number[], number[]];
    slice_util.assertParamsValid(x, starts, sizes);
    const strides = stridesOf(x.shape);
    const offset = starts.reduce((at, start, axis) => at + start * strides[axis]!, 0);
    return strided(backend, x, sizes, strides, offset);
  };
}

function split(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    const { numOrSizeSplits, axis } = attrs as { numOrSizeSplits: number | number[]; axis: number };
    const rank = x.shape.length;
    if (!isFloat(x) || rank > maxRank) return otherwise(inputs, attrs, backend);
    const along = axis < 0 ? axis + rank : axis;
    const strides = stridesOf(x.shape);
    let offset = 0;
    return backend_util.prepareSplitSize({ shape: x.shape } as Tensor, numOrSizeSplits, along).map((n) => {
      const shape = x.shape.map((own, i) => (i === along ? n : own));
      const y = strided(backend, x, shape, strides, offset);
      offset += n * strides[along]!;
      return y;
    });
  };
}

function concat(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const tensors = Object.values(inputs as Record<string, TensorInfo>);
    const rank = tensors[0]!.shape.length;
    if (!isFloat(...tensors) || rank === 0 || rank > maxRank) return otherwise(inputs, attrs, backend);
    const { axis: signed } = attrs as { axis: number };
    const axis = signed < 0 ? signed + rank : signed;
    const shapes = tensors.map((t) => t.shape);
    backend_util.assertParamsConsistent(shapes, axis);
    const shape = backend_util.computeOutShape(shapes, axis);
    const y = backend.allocate(shape);
    const strides = stridesOf(shape);
    const inOrder = shape.slice(0, axis).every((n) => n === 1); // one input after the other in memory
    let offset = 0;
    for (const t of tensors) {
      const [from, to] = [backend.floats(t), y.values];
      if (inOrder) to.set(from, offset);
      else {
        const read = { values: from, offset: 0, strides: stridesOf(t.shape) };
        copy(backend, t.shape, read, { values: to, offset, strides });
      }
      offset += t.shape[axis]! * strides[axis]!;
    }
    return y.info;
  };
}

function transpose(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    if (!isFloat(x) || x.shape.length > maxRank) return otherwise(inputs, attrs, backend);
    return transposed(backend, x, (attrs as { perm: number[] }).perm);
  };
}

function transposed(backend: NativeBackend, x: TensorInfo, perm: number[]): TensorInfo {
  const own = stridesOf(x.shape);
  return strided(
    backend,
    x,
    perm.map((axis) => x.shape[axis]!),
    perm.map((axis) => own[axis]!),
  );
}

function tile(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    const { reps } = attrs as { reps: number[] };
    if (!isFloat(x) || x.shape.length * 2 > maxRank) return otherwise(inputs, attrs, backend);
    const repeated = x.shape.flatMap((n, axis) => [reps[axis]!, n]);
    const strides = stridesOf(x.shape).flatMap((s) => [0, s]);
    const shape = x.shape.map((n, axis) => n * reps[axis]!);
    return { ...strided(backend, x, repeated, strides), shape };
  };
}

/** Sums over the first or the last axes directly; other sets of axes are first moved to the end. */
function sum(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    const { axis, keepDims } = attrs as { axis: number | number[] | null; keepDims: boolean };
    const rank = x.shape.length;
    if (!isFloat(x) || rank > maxRank) return otherwise(inputs, attrs, backend);
    const all = x.shape.map((_, i) => i);
    const summed = new Set([axis ?? all].flat().map((i) => (i < 0 ? i + rank : i)));
    const kept = all.filter((i) => !summed.has(i));
    const order = [...summed].sort((a, b) => a - b);
    const inner = sizeOf(order.map((i) => x.shape[i]!));
    const outer = sizeOf(kept.map((i) => x.shape[i]!));
    const y = backend.allocate(
      keepDims ? x.shape.map((n, i) => (summed.has(i) ? 1 : n)) : kept.map((i) => x.shape[i]!),
    );
    const first = order.every((i) => i < order.length);
    if (first && kept.length > 0) {
      backend.addon.sumRows(backend.floats(x), y.values, inner, outer);
      return y.info;
    }
    const last = kept.every((i) => i < kept.length);
    const rows = last ? x : transposed(backend, x, [...kept, ...order]);
    backend.addon.sumColumns(backend.floats(rows), y.values, outer, inner);
    if (!last) backend.disposeIntermediateTensorInfo(rows);
    return y.info;
  };
}

/** [rows, columns] of each matrix in the last two axes, after transposing. */
function matrixShape({ shape }: TensorInfo, transpose: boolean): [number, number] {
  const [rows, columns] = shape.slice(-2) as [number, number];
  return transpose ? [columns, rows] : [rows, columns];
}

/** C++ covers operands of equal rank with equal batch axes, or with batch axes of size 1 on one side. */
function batchMatMul(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { a, b } = inputs as { a: TensorInfo; b: TensorInfo };
    const { transposeA, transposeB } = attrs as { transposeA: boolean; transposeB: boolean };
    const [batchA, batchB] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
    const [countA, countB] = [sizeOf(batchA), sizeOf(batchB)];
    const same = batchA.length === batchB.length && batchA.every((n, i) => n === batchB[i]);
    const ranksFit = a.shape.length >= 2 && a.shape.length === b.shape.length;
    if (!isFloat(a, b) || !ranksFit || !(same || countA === 1 || countB === 1))
      return otherwise(inputs, attrs, backend);
    const [M, K] = matrixShape(a, transposeA);
    const [Kb, N] = matrixShape(b, transposeB);
    if (K !== Kb)
      throw new Error(
        `BatchMatMul: expected equal inner shapes, found [${a.shape}] and [${b.shape}] (transposeA=${transposeA}, transposeB=${transposeB})`,
      );
    const y = backend.allocate([...(countA === 1 ? batchB : batchA), M, N]);
    const operands = [backend.floats(a), !!transposeA, backend.floats(b), !!transposeB, null] as const;
    const sizes = [Math.max(countA, countB), M, N, K, countA === 1, countB === 1] as const;
    if (y.values.length > 0) backend.addon.gemm(...operands, y.values, ...sizes, backend.precision);
    return y.info;
  };
}

/** C++ covers matmul with or without a bias; with an activation, tfjs's own kernel runs. */
function fusedMatMul(matMul: NativeKernel, add: NativeKernel, otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { a, b, bias } = inputs as { a: TensorInfo; b: TensorInfo; bias?: TensorInfo };
    if (attrs.activation !== 'linear' || !isFloat(a, b) || a.shape.length !== b.shape.length)
      return otherwise(inputs, attrs, backend);
    const plain = matMul({ a, b }, attrs, backend) as TensorInfo;
    if (!bias) return plain;
    const y = add({ a: plain, b: bias }, {}, backend);
    backend.disposeIntermediateTensorInfo(plain);
    return y;
  };
}

/** The overridden kernels; `cpu` returns tfjs's own kernel of a name. */
export function tfjsKernels(cpu: (name: string) => NativeKernel): Record<string, NativeKernel> {
  const arithmetic = Object.fromEntries(binaryOps.map((name, op) => [name, binary(op, cpu(name))]));
  const matMul = batchMatMul(cpu('BatchMatMul'));
  return {
    ...arithmetic,
    BatchMatMul: matMul,
    _FusedMatMul: fusedMatMul(matMul, arithmetic.Add!, cpu('_FusedMatMul')),
    Concat: concat(cpu('Concat')),
    Slice: slice(cpu('Slice')),
    SplitV: split(cpu('SplitV')),
    Sum: sum(cpu('Sum')),
    Tile: tile(cpu('Tile')),
    Transpose: transpose(cpu('Transpose')),
  };
}
