/**
 * The ops that transformers are made of. Each is one kernel of `kernels.ts` with its own backward.
 * B batch, T positions (q: queries, k: keys), D width, H heads, M rows, V vocabulary, r LoRA rank.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import type { KernelName, KernelTable } from './kernels';
import { gatherRows } from './ops';
import { fold, type Key } from './rng';

/** A low-rank addition to a Linear (Hu et al. 2021): y += scaling · B(A(dropout(x))). Names and orientation are PEFT's. */
export interface LoraPart {
  lora_A: { weight: Tensor2D }; // [r, in]
  lora_B: { weight: Tensor2D }; // [out, r]
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
  const given = Object.fromEntries(
    Object.entries(inputs).filter((entry): entry is [string, Tensor] => entry[1] !== undefined),
  );
  const out: Tensor | Tensor[] = tf.engine().runKernel(name, given, attrs as tf.NamedAttrMap);
  return Array.isArray(out) ? out : [out];
}

function project(x: Tensor, weight: Tensor2D, bias?: Tensor1D): Tensor {
  return run('NnLinear', { x, weight, bias }, {})[0];
}

/**
 * y = x·Wᵀ + b, plus the adapter if there is one. x [..., in] → [..., out].
 * The adapter's dropout acts only when `key` is given.
 */
export function linear<T extends Tensor>(p: Linear, x: T, key?: Key): T {
  const [out, width] = p.weight.shape;
  if (x.shape[x.rank - 1] !== width) {
    throw new Error(
      `linear: the weight [${p.weight.shape}] expects inputs of width ${width}, got [${x.shape}]`,
    );
  }
  const rows = tf.reshape(x, [-1, width]); // [M, in]
  let y = project(rows, p.weight, p.bias); // [M, out]
  if (p.lora) {
    const { lora_A, lora_B, scaling } = p.lora;
    const low = project(dropout(rows, p.lora.dropout, key), lora_A.weight); // [M, r]
    y = tf.add(y, project(tf.mul(low, scaling), lora_B.weight)); // [M, out]; scaled where it is small
  }
  return tf.reshape(y, [...x.shape.slice(0, -1), out]) as T;
}

/** (x − mean)/√(var + eps)·weight + bias over the last axis (Ba et al. 2016). */
export function layerNorm<T extends Tensor>(p: LayerNorm, x: T, eps: number): T {
  const D = p.weight.size;
  if (x.shape[x.rank - 1] !== D)
    throw new Error(`layerNorm: ${D} weights expect inputs of width ${D}, got [${x.shape}]`);
  const rows = tf.reshape(x, [-1, D]);
  return tf.reshape(
    run('NnLayerNorm', { x: rows, weight: p.weight, bias: p.bias }, { eps })[0],
    x.shape,
  ) as T;
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
  if (!key || rate === 0) return x;
  if (!(rate > 0 && rate < 1)) throw new RangeError(`dropout: rate must be in [0, 1), got ${rate}`);
  return run('NnDropout', { x }, { rate, key0: key.k0, key1: key.k1 })[0] as T;
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
  if (D % o.numHeads !== 0) throw new Error(`attention: width ${D} is not divisible by ${o.numHeads} heads`);
  if (k.shape[0] !== B || k.shape[2] !== D || v.shape.join() !== k.shape.join()) {
    throw new Error(
      `attention: q [${q.shape}] expects k and v [${B}, Tk, ${D}], got k [${k.shape}], v [${v.shape}]`,
    );
  }
  const key = o.dropout?.key;
  const attrs = {
    numHeads: o.numHeads,
    scale: o.scale ?? (D / o.numHeads) ** -0.5,
    causal: o.causal ?? false,
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
  const [M, V] = logits.shape;
  if (labels.length !== M) throw new Error(`crossEntropy: ${M} rows of logits, ${labels.length} labels`);
  if (!labels.some((label) => label >= 0))
    throw new Error('crossEntropy: no row is labelled, so there is nothing to learn');
  const wrong = labels.find((label) => label >= V);
  if (wrong !== undefined)
    throw new RangeError(`crossEntropy: label ${wrong} is outside the vocabulary of ${V}`);
  const inputs = { logits, labels: tf.tensor1d(labels, 'int32') };
  return run('NnCrossEntropy', inputs, { labelSmoothing })[0] as Scalar;
}

/** Key of one site in a layer; undefined stays undefined, so evaluation needs no special case. */
export function site(key: Key | undefined, name: number | string): Key | undefined {
  return key && fold(key, name);
}
