/**
 * The ops that transformers are made of. Each is one kernel of `kernels.ts` with its own backward.
 * B batch, T positions (q: queries, k: keys), D width, H heads, M rows, V vocabulary, r LoRA rank.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import { isRecording } from './autodiff';
import type { Activation, KernelName, KernelTable } from './kernels';
import { gatherRows } from './ops';
import { fold, type Key } from './rng';

/** A low-rank addition to a Linear (Hu et al. 2021): y += scaling · B(A(dropout(x))). Names and orientation are PEFT's. */
export interface LoraPart {
  lora_A: { weight: Tensor2D }; // [r, in]
  lora_B: { weight: Tensor2D; bias?: Tensor1D }; // [out, r], [out] with PEFT's lora_bias
  /** DoRA (Liu et al. 2024): the length of each row of the adapted weight, learned apart from its direction. */
  lora_magnitude_vector?: Tensor1D; // [out]
  scaling: number;
  dropout: number;
}
export interface Linear {
  weight: Tensor2D; // [out, in]
  bias?: Tensor1D; // [out]
  lora?: LoraPart;
}
export interface LayerNorm {
  weight: Tensor1D; // [D]
  bias: Tensor1D; // [D]
}
export interface Embedding {
  weight: Tensor2D; // [V, D]
}
/** How one part of the model runs. A `dropout` key means training mode; without it the part runs as in evaluation. */
export interface StageOptions {
  dropout?: Key;
  /** Recompute each layer in the backward pass instead of storing its activations. */
  checkpoint?: boolean;
  /** Sees every named intermediate; for parity tests. */
  tap?: (name: string, x: Tensor) => void;
}

function run<K extends KernelName>(
  name: K,
  inputs: Record<string, Tensor | undefined>,
  attrs: KernelTable[K]['attrs'],
): Tensor[] {
  const out: Tensor | Tensor[] = tf.engine().runKernel(name, present(inputs), attrs as tf.NamedAttrMap);
  return Array.isArray(out) ? out : [out];
}

/** The inputs that are there. Hundreds of kernels run per generated token, mostly with all of theirs: then nothing is copied. */
function present(inputs: Record<string, Tensor | undefined>): Record<string, Tensor> {
  for (const name in inputs)
    if (inputs[name] === undefined)
      return Object.fromEntries(Object.entries(inputs).filter(([, x]) => x !== undefined)) as Record<
        string,
        Tensor
      >;
  return inputs as Record<string, Tensor>;
}

function project(x: Tensor, weight: Tensor2D, bias?: Tensor1D, residual?: Tensor): Tensor {
  if (residual) return run('NnLinear', { x, weight, bias, residual }, {})[0];
  return run('NnLinear', bias ? { x, weight, bias } : { x, weight }, {})[0];
}

function checkWidth(op: string, { weight }: Linear, x: Tensor): void {
  const width = weight.shape[1];
  if (x.shape[x.rank - 1] !== width)
    throw new Error(`${op}: the weight [${weight.shape}] expects inputs of width ${width}, got [${x.shape}]`);
}

/**
 * y = x·Wᵀ + b, plus the adapter if there is one. x [..., in] → [..., out].
 * The adapter's dropout acts only when `key` is given.
 */
export function linear<T extends Tensor>(p: Linear, x: T, key?: Key): T {
  checkWidth('linear', p, x);
  return whole(p, x, key) as T;
}

/** How `residualLinear` runs in training: the adapter's key, and the dropout of what is added. */
export interface ResidualOptions {
  key?: Key;
  dropout?: { rate: number; key: Key | undefined };
}

/** `residual + dropout(linear(p, x, key))`, without a pass of its own where nothing is dropped. residual [..., out] → [..., out]. */
export function residualLinear<T extends Tensor>(p: Linear, x: T, residual: T, o: ResidualOptions = {}): T {
  checkWidth('residualLinear', p, x);
  const shape = [...x.shape.slice(0, -1), p.weight.shape[0]];
  if (residual.shape.join() !== shape.join())
    throw new Error(`residualLinear: expected a residual [${shape}], got [${residual.shape}]`);
  const { rate, key } = o.dropout ?? { rate: 0 };
  const drops = key !== undefined && rate !== 0;
  return drops
    ? tf.add(residual, dropout(linear(p, x, o.key), rate, key))
    : (whole(p, x, o.key, residual) as T);
}

function whole(p: Linear, x: Tensor, key?: Key, residual?: Tensor): Tensor {
  if (!p.lora) return project(x, p.weight, p.bias, residual);
  const { lora_magnitude_vector, lora_B } = p.lora;
  if (!lora_magnitude_vector && !lora_B.bias) return adapted(p, p.lora, x, key, residual);
  const y = inParts(p, p.lora, x, key);
  return residual ? tf.add(y, residual) : y;
}

/**
 * `activation(linear(p, x, key))`, with no pass of its own over the product where nothing of it is recorded for a backward
 * pass. x [..., in] → [..., out].
 */
export function activatedLinear<T extends Tensor>(activation: Activation, p: Linear, x: T, key?: Key): T {
  if (p.lora || isRecording()) return activations[activation](linear(p, x, key));
  checkWidth('activatedLinear', p, x);
  const { weight, bias } = p;
  return run('NnLinear', { x, weight, bias }, { activation })[0] as T;
}

const activations = { gelu, relu };

/** The base, its adapter and the residual in one kernel: no pass over y besides the products. */
function adapted(
  { weight, bias }: Linear,
  lora: LoraPart,
  x: Tensor,
  key: Key | undefined,
  residual: Tensor | undefined,
): Tensor {
  const { scaling } = lora;
  const inputs = { x, weight, bias, residual, lora_A: lora.lora_A.weight, lora_B: lora.lora_B.weight };
  return run('NnLoraLinear', inputs, { scaling, ...dropoutAttrs(lora.dropout, key) })[0];
}

/** The same step by step, for adapters with a magnitude (DoRA) or a bias. */
function inParts(p: Linear, lora: LoraPart, x: Tensor, key: Key | undefined): Tensor {
  const y = project(x, p.weight, p.bias); // [..., out]
  const dropped = dropout(x, lora.dropout, key);
  const low = project(dropped, lora.lora_A.weight); // [..., r]
  const delta = tf.mul(project(low, lora.lora_B.weight, lora.lora_B.bias), lora.scaling); // [..., out]
  return lora.lora_magnitude_vector
    ? dora(p, y, delta, dropped === x ? undefined : dropped)
    : tf.add(y, delta);
}

/**
 * DoRA's output from the base's y and the adapter's delta (PEFT's DoraLinearLayer): y + (m/n − 1)·Wx + (m/n)·delta, with
 * magnitudes m and row norms n. Where dropout acts, Wx is taken from the dropped rows, as PEFT does.
 */
function dora(p: Linear, y: Tensor, delta: Tensor, dropped: Tensor | undefined): Tensor {
  const { lora_magnitude_vector: magnitude } = p.lora!;
  const ratio = tf.div(magnitude!, doraNorm(p.weight, p.lora!)); // [out]
  const plain = dropped ? project(dropped, p.weight) : p.bias ? tf.sub(y, p.bias) : y; // [M, out], no bias
  return tf.add(tf.add(y, tf.mul(tf.sub(ratio, 1), plain)), tf.mul(ratio, delta));
}

/** Norms of the rows of W + scaling·B·A, [out]. They are constants to the gradient, as the paper (section 4.3) and PEFT have it. */
export function doraNorm(weight: Tensor2D, { lora_A, lora_B, scaling }: LoraPart): Tensor1D {
  const norm = tf.customGrad(() => {
    const change = project(tf.transpose(lora_A.weight), lora_B.weight); // [in, out], (B·A)ᵀ
    const adapted = tf.add(weight, tf.mul(tf.transpose(change), scaling)); // [out, in]
    return { value: tf.sqrt(tf.sum(tf.square(adapted), 1)), gradFunc: () => [] };
  });
  return norm() as Tensor1D;
}

/** (x − mean)/√(var + eps)·weight + bias over the last axis (Ba et al. 2016). */
export function layerNorm<T extends Tensor>(p: LayerNorm, x: T, eps: number): T {
  const D = p.weight.size;
  if (x.shape[x.rank - 1] !== D)
    throw new Error(`layerNorm: ${D} weights expect inputs of width ${D}, got [${x.shape}]`);
  return run('NnLayerNorm', { x, weight: p.weight, bias: p.bias }, { eps })[0] as T;
}

/** Exact GELU, x·Φ(x) (Hendrycks & Gimpel 2016), not the tanh approximation. */
export function gelu<T extends Tensor>(x: T): T {
  return run('NnGelu', { x }, {})[0] as T;
}

/** max(x, 0). */
export function relu<T extends Tensor>(x: T): T {
  return run('NnRelu', { x }, {})[0] as T;
}

/** Zeroes elements with probability `rate` and scales the rest by 1/(1 − rate); without a key x passes unchanged. */
export function dropout<T extends Tensor>(x: T, rate: number, key: Key | undefined): T {
  const attrs = dropoutAttrs(rate, key);
  return attrs.rate === 0 ? x : (run('NnDropout', { x }, attrs)[0] as T);
}

/** Attributes of a kernel that drops; rate 0 without a key. */
function dropoutAttrs(rate: number, key: Key | undefined): { rate: number; key0: number; key1: number } {
  if (!key || rate === 0) return { rate: 0, key0: 0, key1: 0 };
  if (!(rate > 0 && rate < 1)) throw new RangeError(`dropout: rate must be in [0, 1), got ${rate}`);
  return { rate, key0: key.k0, key1: key.k1 };
}

export interface AttentionOptions {
  numHeads: number;
  /** Factor on q·k; (D/H)^-½ by default. */
  scale?: number;
  /** Query i sees keys up to i + Tk − Tq. */
  causal?: boolean;
  /** [B, Tk], 1 keep, 0 hide. */
  keyMask?: Tensor2D;
  dropout?: { rate: number; key: Key | undefined };
}

/**
 * Multi-head scaled dot-product attention (Vaswani et al. 2017). q [B, Tq, D], k and v [B, Tk, D] → [B, Tq, D];
 * head h owns the columns h·D/H … (h + 1)·D/H. A query that sees no key gets 0.
 */
export function attention(q: Tensor3D, k: Tensor3D, v: Tensor3D, o: AttentionOptions): Tensor3D {
  const [B, , D] = q.shape;
  checkAttention('attention', q, [k, v], o);
  if (k.shape[0] !== B)
    throw new Error(`attention: q [${q.shape}] expects k and v [${B}, Tk, ${D}], got k [${k.shape}]`);
  const key = o.dropout?.key;
  const attrs = {
    ...headAttrs(D, o),
    dropoutRate: key ? (o.dropout?.rate ?? 0) : 0,
    key0: key?.k0 ?? 0,
    key1: key?.k1 ?? 0,
  };
  const { keyMask } = o;
  const op = tf.customGrad((...args: unknown[]) => {
    const [q, k, v, save] = args as [Tensor, Tensor, Tensor, tf.GradSaveFunc];
    const [out, lse] = run('NnAttention', { q, k, v, keyMask }, attrs);
    save(keyMask ? [q, k, v, out, lse, keyMask] : [q, k, v, out, lse]);
    const gradFunc = (dout: Tensor, saved: Tensor[]) => {
      const [q, k, v, out, lse, keyMask] = saved;
      return run('NnAttentionGrad', { q, k, v, keyMask, out, lse, dout }, attrs);
    };
    return { value: out, gradFunc };
  });
  return op(q, k, v) as Tensor3D;
}

/** Keys and values of T positions, [rows, T, D]. Item b of the queries reads row rows[b], or row b without `rows`. */
export interface KvPage {
  readonly k: Tensor3D;
  readonly v: Tensor3D;
  readonly rows?: Int32Array;
}

/**
 * `attention` to keys and values that lie in pages, in order of position (Kwon et al. 2023): nothing is copied where the
 * backend has the kernel, and rows that began alike share the pages of their beginning. q [B, Tq, D] → [B, Tq, D].
 * It has no gradient. Throws when widths, rows or mask do not fit.
 */
export function pagedAttention(
  q: Tensor3D,
  pages: readonly KvPage[],
  o: Omit<AttentionOptions, 'dropout'>,
): Tensor3D {
  const [B, , D] = q.shape;
  for (const { k, v, rows } of pages) {
    checkAttention('pagedAttention', q, [k, v], o);
    const wrong = rows?.find((row) => row < 0 || row >= k.shape[0]);
    if ((rows?.length ?? k.shape[0]) !== B || wrong !== undefined)
      throw new Error(
        `pagedAttention: q [${q.shape}] expects ${B} rows of a page of ${k.shape[0]}, got ${rows ? `[${rows.join()}]` : k.shape[0]}`,
      );
  }
  const inputs: Record<string, Tensor> = o.keyMask ? { q, keyMask: o.keyMask } : { q };
  pages.forEach(({ k, v }, i) => {
    inputs[2 * i] = k;
    inputs[2 * i + 1] = v;
  });
  const attrs = { ...headAttrs(D, o), rows: pages.map(({ rows }) => rows ?? null) };
  return run('NnPagedAttention', inputs, attrs)[0] as Tensor3D;
}

function headAttrs(D: number, { numHeads, scale, causal }: AttentionOptions) {
  return { numHeads, scale: scale ?? (D / numHeads) ** -0.5, causal: causal ?? false };
}

function checkAttention(op: string, q: Tensor3D, [k, v]: [Tensor3D, Tensor3D], o: AttentionOptions): void {
  const D = q.shape[2];
  if (D % o.numHeads !== 0) throw new Error(`${op}: width ${D} is not divisible by ${o.numHeads} heads`);
  if (k.shape[2] !== D || !tf.util.arraysEqual(v.shape, k.shape))
    throw new Error(
      `${op}: q [${q.shape}] expects k and v of one shape and width ${D}, got k [${k.shape}], v [${v.shape}]`,
    );
}

/** Rows of the table for host-side ids. shape: the ids' shape → [...shape, D]. */
export function embedding<T extends Tensor = Tensor3D>(
  p: Embedding,
  ids: Int32Array,
  shape: readonly number[],
): T {
  return tf.reshape(gatherRows(p.weight, ids), [...shape, p.weight.shape[1]]) as T;
}

/**
 * Mean cross-entropy over the rows whose label is not negative. logits [M, V], labels [M] → scalar.
 * @throws when a label is outside the vocabulary or no row is labelled
 */
export function crossEntropy(logits: Tensor2D, labels: Int32Array, labelSmoothing = 0): Scalar {
  checkLabels('crossEntropy', 'logits', labels, logits.shape);
  const inputs = { logits, labels: tf.tensor1d(labels, 'int32') };
  return run('NnCrossEntropy', inputs, { labelSmoothing })[0] as Scalar;
}

/**
 * `crossEntropy(linear(p, x), labels)` without holding the logits [M, V], neither here nor in the backward pass, which
 * computes them again piece by piece. x [M, D], labels [M] → scalar. A bias or an adapter of `p` takes the long way.
 * @throws as crossEntropy
 */
export function linearCrossEntropy(p: Linear, x: Tensor2D, labels: Int32Array, labelSmoothing = 0): Scalar {
  if (p.bias || p.lora) return crossEntropy(linear(p, x), labels, labelSmoothing);
  checkLabels('linearCrossEntropy', 'x', labels, [x.shape[0], p.weight.shape[0]]);
  checkWidth('linearCrossEntropy', p, x);
  const inputs = { x, weight: p.weight, labels: tf.tensor1d(labels, 'int32') };
  return run('NnLinearCrossEntropy', inputs, { labelSmoothing })[0] as Scalar;
}

function checkLabels(op: string, what: string, labels: Int32Array, [M, V]: readonly number[]): void {
  if (labels.length !== M) throw new Error(`${op}: ${M} rows of ${what}, ${labels.length} labels`);
  if (!labels.some((label) => label >= 0))
    throw new Error(`${op}: no row is labelled, so there is nothing to learn`);
  const wrong = labels.find((label) => label >= V);
  if (wrong !== undefined) throw new RangeError(`${op}: label ${wrong} is outside the vocabulary of ${V}`);
}

/** Key of one site in a layer; undefined stays undefined, so evaluation needs no special case. */
export function site(key: Key | undefined, name: number | string): Key | undefined {
  return key && fold(key, name);
}
