/** Attention with a streaming softmax, over whole keys and over pages, and its gradients. */
import type { KernelInputs } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { GpuBackend } from '../backend';
import type { KernelsOf } from '../kernel';
import { sizeOf } from '../kernel';
import { elementsOf, f32 } from '../program';
import type { Program, Uniform } from '../program';
import attentionCode, { size } from '../wgsl/attention';
import * as backward from '../wgsl/attention-grad';
import exact from '../wgsl/exact';
import philox from '../wgsl/philox';
import { dropUniforms } from './dropout';

const shared = exact + philox + size;

interface Attrs {
  numHeads: number;
  scale: number;
  causal: boolean;
  dropoutRate?: number;
  key0?: number;
  key1?: number;
}

interface Sizes {
  B: number;
  Tq: number;
  Tk: number;
  /** Numbers of a head. */
  D: number;
}

interface Optional {
  keyMask?: TensorInfo;
  bias?: TensorInfo;
}

/** Rows of a tile: 16, or fewer if so many of `tiles` tiles do not fit into the memory that the threads of a group share. */
function tileOf(backend: GpuBackend, tiles: number, D: number): number {
  const { sharedBytes, threads, software } = backend.adapter;
  const fits = (T: number) => (tiles * T * D + 2 * T * T) * 4 <= sharedBytes && T * T <= threads;
  const sides = software ? [8, 4, 2] : [16, 8, 4, 2]; // barriers of many threads are slow on the processor
  const T = sides.find(fits);
  if (!T)
    throw new Error(
      `webgpu: expected heads that fit into ${sharedBytes} bytes of shared memory, found a head of width ${D}`,
    );
  return T;
}

const constantsOf = ({ keyMask, bias }: Optional, { causal, dropoutRate = 0 }: Attrs) => ({
  CAUSAL: causal,
  MASK: keyMask !== undefined,
  BIAS: bias !== undefined,
  DROP: dropoutRate > 0,
});

function uniformsOf({ B, Tq, Tk }: Sizes, { bias }: Optional, a: Attrs): Uniform[] {
  const { dropoutRate: rate = 0, key0: first = 0, key1: second = 0 } = a;
  const { key0, key1, least, keep } = dropUniforms({ rate, key0: first, key1: second });
  return [a.numHeads, Tq, Tk, bias?.shape[0] ?? 1, key0, key1, least, f32(keep), f32(a.scale), B];
}

interface Given extends Optional {
  q: TensorInfo;
  k: TensorInfo;
  v: TensorInfo;
  /** The row of each key [B, Tk] in k and v, which may have any shape then. */
  at?: GPUBuffer;
}

function attend(backend: GpuBackend, given: Given, sizes: Sizes, attrs: Attrs, lse?: TensorInfo): TensorInfo {
  const { q, k, v, keyMask, bias, at } = given;
  const { B, Tq, D } = sizes;
  const T = tileOf(backend, 2, D);
  const out = backend.allocate(q.shape);
  const flags = { INDEXED: at !== undefined, LSE: lse !== undefined };
  const program: Program = {
    name: 'attention',
    code: shared + attentionCode,
    constants: { T, D, ...flags, ...constantsOf(given, attrs) },
  };
  const grid = [Math.ceil(Tq / T), attrs.numHeads, B] as const;
  backend.run(program, grid, [q, k, v, keyMask, bias, at, out, lse], uniformsOf(sizes, given, attrs));
  return out;
}

function sizesOf(q: TensorInfo, Tk: number, numHeads: number): Sizes {
  const [B, Tq, width] = q.shape as [number, number, number];
  return { B, Tq, Tk, D: width / numHeads };
}

type GradInputs = KernelInputs<'NnAttentionGrad', TensorInfo>;

/** lse and Σ dout·out of each query, to be freed. */
function statsOf(backend: GpuBackend, { out, dout, lse }: GradInputs, { B, Tq, D }: Sizes, H: number) {
  const stats = backend.allocate([B, H, Tq, 2]);
  const program = { name: 'attention-stats', code: backward.stats, constants: { D } };
  const count = B * H * Tq;
  backend.run(program, elementsOf(count), [out, dout, lse, stats], [count, H, Tq]);
  return stats;
}

/** Pages one after the other in a buffer of their own. */
function joined(backend: GpuBackend, pages: readonly TensorInfo[]): TensorInfo {
  const rows = pages.reduce((sum, { shape }) => sum + shape[0]! * shape[1]!, 0);
  const all = backend.allocate([rows, pages[0]!.shape[2]!]);
  let at = 0;
  for (const page of pages) {
    const bytes = 4 * sizeOf(page.shape);
    backend.copy(page, all, at, bytes);
    at += bytes;
  }
  return all;
}

/** The row of each key [B, Tk] in `joined` pages. */
function keyRows(B: number, pages: readonly TensorInfo[], rows: readonly (Int32Array | null)[]): Int32Array {
  const Tk = pages.reduce((sum, { shape }) => sum + shape[1]!, 0);
  const at = new Int32Array(B * Tk);
  let [begin, first] = [0, 0];
  pages.forEach(({ shape }, p) => {
    const [count, T] = shape as [number, number];
    for (let b = 0; b < B; b++)
      for (let t = 0; t < T; t++) at[b * Tk + first + t] = begin + (rows[p]?.[b] ?? b) * T + t;
    begin += count * T;
    first += T;
  });
  return at;
}

export const attention: KernelsOf<
  'NnAttention' | 'NnAttentionGrad' | 'NnAttentionGradBias' | 'NnPagedAttention'
> = {
  NnAttention(inputs, attrs, backend) {
    const sizes = sizesOf(inputs.q, inputs.k.shape[1]!, attrs.numHeads);
    const lse = backend.allocate([sizes.B, attrs.numHeads, sizes.Tq]);
    return [attend(backend, inputs, sizes, attrs, lse), lse];
  },

  NnAttentionGrad(inputs, attrs, backend) {
    const { q, k, v, keyMask, bias, dout } = inputs;
    const H = attrs.numHeads;
    const sizes = sizesOf(q, k.shape[1]!, H);
    const { B, Tq, Tk, D } = sizes;
    const T = tileOf(backend, 4, D);
    const stats = statsOf(backend, inputs, sizes, H);
    const [dq, dk, dv] = [backend.allocate(q.shape), backend.allocate(k.shape), backend.allocate(v.shape)];
    const constants = { T, D, ...constantsOf(inputs, attrs) };
    const [bound, uniforms] = [[q, k, v, keyMask, bias, stats, dout], uniformsOf(sizes, inputs, attrs)];
    const program = (name: string, code: string) => ({ name, code: shared + code, constants });
    const queries = program('attention-grad-queries', backward.queries);
    backend.run(queries, [Math.ceil(Tq / T), H, B], [...bound, dq], uniforms);
    const keys = program('attention-grad-keys', backward.keys);
    backend.run(keys, [Math.ceil(Tk / T), H, B], [...bound, dk, dv], uniforms);
    backend.release(stats);
    return [dq, dk, dv];
  },

  NnAttentionGradBias(inputs, attrs, backend) {
    const { q, k, v, keyMask, bias, dout } = inputs;
    const sizes = sizesOf(q, k.shape[1]!, attrs.numHeads);
    const stats = statsOf(backend, inputs, sizes, attrs.numHeads);
    const dbias = backend.allocate(bias.shape);
    const constants = { D: sizes.D, ...constantsOf(inputs, attrs) };
    const program = { name: 'attention-grad-bias', code: shared + backward.bias, constants };
    const bound = [q, k, v, keyMask, bias, stats, dout, dbias];
    backend.run(program, elementsOf(sizeOf(bias.shape)), bound, uniformsOf(sizes, inputs, attrs));
    backend.release(stats);
    return dbias;
  },

  NnPagedAttention({ q, keyMask, bias, keys, values }, { rows, ...attrs }, backend) {
    const Tk = keys.reduce((sum, { shape }) => sum + shape[1]!, 0);
    const sizes = sizesOf(q, Tk, attrs.numHeads);
    const [k, v] = [joined(backend, keys), joined(backend, values)];
    const at = backend.constant(keyRows(sizes.B, keys, rows));
    const out = attend(backend, { q, k, v, keyMask, bias, at }, sizes, attrs);
    backend.release(k, v);
    return out;
  },
};
