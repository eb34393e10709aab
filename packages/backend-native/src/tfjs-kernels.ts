// The tfjs kernels that a training step spends time in. What C++ does not cover goes on to tfjs's own CPU kernel.
import { backend_util, util } from '@tensorflow/tfjs-core';
import type { Tensor, TensorInfo } from '@tensorflow/tfjs-core';
import { binaryOps } from './addon';
import { sizeOf } from './backend';
import type { NativeBackend } from './backend';
import type { NativeKernel } from './kernel';

export const maxRank = 8;

/** Row-major strides, in elements. */
export function stridesOf(shape: number[]): number[] {
  const strides = new Array<number>(shape.length);
  for (let axis = shape.length - 1, step = 1; axis >= 0; axis--) {
    strides[axis] = step;
    step *= shape[axis]!;
  }
  return strides;
}

/** Strides of a tensor seen in a larger shape: axes that it lacks or has once repeat. */
export function broadcastStrides(from: number[], shape: number[]): number[] {
  const own = stridesOf(from);
  const missing = shape.length - from.length;
  return shape.map((_, axis) => (axis < missing || from[axis - missing] === 1 ? 0 : own[axis - missing]!));
}

/** Joins neighbouring axes that all the strides walk as one; the result has at least one axis. */
export function collapse(shape: number[], ...strides: number[][]): { shape: number[]; strides: number[][] } {
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

export const isFloat = (...tensors: TensorInfo[]) => tensors.every(({ dtype }) => dtype === 'float32');

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
    if (y.values.length > 0)
      backend.addon.binary(
        op,
        backend.floats(a),
        aStrides,
        backend.floats(b),
        bStrides,
        joined.shape,
        y.values,
      );
    return y.info;
  };
}

/** Copies between two strided views of `shape`. */
export function copy(
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

function slice(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    if (!isFloat(x) || x.shape.length > maxRank) return otherwise(inputs, attrs, backend);
    const { begin, size } = attrs as { begin: number | number[]; size: number | number[] };
    const starts = x.shape.map(
      (_, axis) => (Array.isArray(begin) ? begin[axis] : axis === 0 ? begin : 0) ?? 0,
    );
    const sizes = x.shape.map((n, axis) => {
      const wish = (Array.isArray(size) ? size[axis] : axis === 0 ? size : -1) ?? -1;
      return wish < 0 ? n - starts[axis]! : wish;
    });
    sizes.forEach((n, axis) => {
      if (starts[axis]! < 0 || n < 0 || starts[axis]! + n > x.shape[axis]!)
        throw new Error(`Slice: begin [${starts}] and size [${sizes}] leave the shape [${x.shape}]`);
    });
    const strides = stridesOf(x.shape);
    const offset = starts.reduce((at, start, axis) => at + start * strides[axis]!, 0);
    const y = backend.allocate(sizes);
    const to = { values: y.values, offset: 0, strides: stridesOf(sizes) };
    copy(backend, sizes, { values: backend.floats(x), offset, strides }, to);
    return y.info;
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
      const y = backend.allocate(x.shape.map((own, i) => (i === along ? n : own)));
      const to = { values: y.values, offset: 0, strides: stridesOf(y.info.shape) };
      copy(backend, y.info.shape, { values: backend.floats(x), offset, strides }, to);
      offset += n * strides[along]!;
      return y.info;
    });
  };
}

function concat(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const tensors = Object.values(inputs as Record<string, TensorInfo>);
    const rank = tensors[0]!.shape.length;
    if (!isFloat(...tensors) || rank === 0 || rank > maxRank) return otherwise(inputs, attrs, backend);
    const given = (attrs as { axis: number }).axis;
    const axis = given < 0 ? given + rank : given;
    backend_util.assertParamsConsistent(
      tensors.map(({ shape }) => shape),
      axis,
    );
    const shape = backend_util.computeOutShape(
      tensors.map((t) => t.shape),
      axis,
    );
    const y = backend.allocate(shape);
    const strides = stridesOf(shape);
    let offset = 0;
    for (const t of tensors) {
      const from = { values: backend.floats(t), offset: 0, strides: stridesOf(t.shape) };
      copy(backend, t.shape, from, { values: y.values, offset, strides });
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
  const shape = perm.map((axis) => x.shape[axis]!);
  const own = stridesOf(x.shape);
  const y = backend.allocate(shape);
  const from = { values: backend.floats(x), offset: 0, strides: perm.map((axis) => own[axis]!) };
  copy(backend, shape, from, { values: y.values, offset: 0, strides: stridesOf(shape) });
  return y.info;
}

function tile(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    const { reps } = attrs as { reps: number[] };
    if (!isFloat(x) || x.shape.length * 2 > maxRank) return otherwise(inputs, attrs, backend);
    const own = stridesOf(x.shape);
    const y = backend.allocate(x.shape.map((n, axis) => n * reps[axis]!));
    const shape = x.shape.flatMap((n, axis) => [reps[axis]!, n]);
    const from = { values: backend.floats(x), offset: 0, strides: own.flatMap((s) => [0, s]) };
    copy(backend, shape, from, { values: y.values, offset: 0, strides: stridesOf(shape) });
    return y.info;
  };
}

/** Sums over the last axes as rows, over the first as columns; any other set of axes is first moved to the end. */
function sum(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { x } = inputs as { x: TensorInfo };
    const { axis, keepDims } = attrs as { axis: number | number[] | null; keepDims: boolean };
    const rank = x.shape.length;
    if (!isFloat(x) || rank > maxRank) return otherwise(inputs, attrs, backend);
    const wanted = axis === null || axis === undefined ? x.shape.map((_, i) => i) : [axis].flat();
    const gone = new Set(wanted.map((i) => (i < 0 ? i + rank : i)));
    const kept = x.shape.map((_, i) => i).filter((i) => !gone.has(i));
    const order = [...gone].sort((a, b) => a - b);
    const inner = sizeOf(order.map((i) => x.shape[i]!));
    const outer = sizeOf(kept.map((i) => x.shape[i]!));
    const y = backend.allocate(
      keepDims ? x.shape.map((n, i) => (gone.has(i) ? 1 : n)) : kept.map((i) => x.shape[i]!),
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

/** Both operands of rank 2 or more; the batch axes must be equal, or those of one side all 1. */
function batchMatMul(otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { a, b } = inputs as { a: TensorInfo; b: TensorInfo };
    const { transposeA, transposeB } = attrs as { transposeA: boolean; transposeB: boolean };
    const ra = a.shape.length;
    const rb = b.shape.length;
    const [batchA, batchB] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
    const [countA, countB] = [sizeOf(batchA), sizeOf(batchB)];
    const same = batchA.length === batchB.length && batchA.every((n, i) => n === batchB[i]);
    if (!isFloat(a, b) || ra < 2 || ra !== rb || !(same || countA === 1 || countB === 1))
      return otherwise(inputs, attrs, backend);
    const [M, K] = transposeA ? [a.shape[ra - 1]!, a.shape[ra - 2]!] : [a.shape[ra - 2]!, a.shape[ra - 1]!];
    const [Kb, N] = transposeB ? [b.shape[rb - 1]!, b.shape[rb - 2]!] : [b.shape[rb - 2]!, b.shape[rb - 1]!];
    if (K !== Kb)
      throw new Error(
        `BatchMatMul: inner shapes must match, got [${a.shape}] and [${b.shape}] (transposeA=${transposeA}, transposeB=${transposeB})`,
      );
    const y = backend.allocate([...(countA === 1 ? batchB : batchA), M, N]);
    const [x, w] = [backend.floats(a), backend.floats(b)];
    const batch = Math.max(countA, countB);
    const repeats = [countA === 1, countB === 1] as const;
    const transposed = [!!transposeA, !!transposeB] as const;
    if (batch * M * N > 0)
      backend.addon.gemm(
        x,
        transposed[0],
        w,
        transposed[1],
        null,
        y.values,
        batch,
        M,
        N,
        K,
        ...repeats,
        backend.precision,
      );
    return y.info;
  };
}

/** Only the plain case and a bias as long as the columns; an activation takes tfjs's own way. */
function fusedMatMul(matMul: NativeKernel, add: NativeKernel, otherwise: NativeKernel): NativeKernel {
  return (inputs, attrs, backend) => {
    const { a, b, bias } = inputs as { a: TensorInfo; b: TensorInfo; bias?: TensorInfo };
    if (attrs.activation !== 'linear' || !isFloat(a, b) || a.shape.length !== b.shape.length)
      return otherwise(inputs, attrs, backend);
    const product = matMul({ a, b }, attrs, backend) as TensorInfo;
    if (!bias) return product;
    const y = add({ a: product, b: bias }, {}, backend);
    backend.disposeIntermediateTensorInfo(product);
    return y;
  };
}

/** The overridden kernels; `cpu` gives tfjs's own kernel of a name. */
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
