/** Scaled dot-product attention over whole keys and over pages. B batch, T positions (q: queries, k: keys), D width, H heads. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor2D, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import { isReached, isRecording } from '../autodiff';
import { runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { KernelAttrs, KernelInputs, KernelOutputs } from '../kernels';
import type { Key } from '../rng';
import { dropoutAttrs, dropoutMask, matMul } from './compose';

type Attrs = KernelAttrs<'NnAttention'>;

export interface AttentionOptions {
  numHeads: number;
  /** Factor on q·k; (D/H)^-½ by default. */
  scale?: number;
  /** Query i attends to keys up to i + Tk − Tq. */
  causal?: boolean;
  /** [B, Tk], 1 keep, 0 hide. */
  keyMask?: Tensor2D;
  /** [1 or B, H, Tq, Tk], finite: added to the scaled scores; with 1, to those of every item. */
  bias?: Tensor4D;
  dropout?: { rate: number; key: Key | undefined };
}

/**
 * Multi-head scaled dot-product attention (Vaswani et al. 2017). q [B, Tq, D], k and v [B, Tk, D] → [B, Tq, D];
 * head h owns the columns h·D/H … (h + 1)·D/H. A query without visible keys gets 0.
 */
export function attention(q: Tensor3D, k: Tensor3D, v: Tensor3D, o: AttentionOptions): Tensor3D {
  const [B, , D] = q.shape;
  checkAttention('attention', q, [k, v], o);
  if (k.shape[0] !== B)
    throw new Error(`attention: q [${q.shape}] expects k and v [${B}, Tk, ${D}], found k [${k.shape}]`);
  checkBias('attention', q, k.shape[1], o);
  const { rate: dropoutRate, ...keys } = dropoutAttrs(o.dropout?.rate ?? 0, o.dropout?.key);
  const attrs = { ...headAttrs(D, o), dropoutRate, ...keys };
  const { keyMask, bias } = o;
  const inputs = { q, k, v, keyMask, bias };
  const out = isRecording() ? recorded(inputs, attrs) : runKernel('NnAttention', inputs, attrs)[0];
  return out as Tensor3D;
}

/** A custom gradient, since tfjs cannot save optional inputs. */
function recorded(inputs: KernelInputs<'NnAttention', Tensor>, attrs: Attrs): Tensor {
  const { q, k, v, bias } = inputs;
  const trained = bias && isReached(bias) ? [bias] : []; // a custom gradient must return one for each input
  const op = tf.customGrad((...args: unknown[]) => {
    const save = args[args.length - 1] as tf.GradSaveFunc;
    const [out, lse] = runKernel('NnAttention', inputs, attrs);
    const read = Object.entries({ ...inputs, out, lse }).filter(([, x]) => x) as [string, Tensor][];
    save(read.map(([, x]) => x));
    const gradFunc = (dout: Tensor, saved: Tensor[]) => {
      const named = Object.fromEntries(read.map(([name], i) => [name, saved[i]]));
      const given = { ...named, dout } as KernelInputs<'NnAttentionGradBias', Tensor>;
      const grads: Tensor[] = runKernel('NnAttentionGrad', given, attrs);
      return [...grads, ...trained.map(() => runKernel('NnAttentionGradBias', given, attrs))];
    };
    return { value: out, gradFunc };
  });
  return op(q, k, v, ...trained);
}

/** Keys and values of T positions, [rows, T, D]. Item b of the queries reads row rows[b], or row b without `rows`. */
export interface KvPage {
  readonly k: Tensor3D;
  readonly v: Tensor3D;
  readonly rows?: Int32Array;
}

/**
 * `attention` to KV pages, in order of position (Kwon et al. 2023). Pages are not copied if the backend has the kernel, and rows with a
 * common beginning can share pages. q [B, Tq, D] → [B, Tq, D]. No gradient.
 * @throws Error if widths, rows or bias do not fit
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
        `pagedAttention: q [${q.shape}] expects ${B} rows of a page of ${k.shape[0]}, found ${rows ? `[${rows.join()}]` : k.shape[0]}`,
      );
  }
  const Tk = pages.reduce((sum, { k }) => sum + k.shape[1], 0);
  checkBias('pagedAttention', q, Tk, o);
  const inputs = {
    q,
    keyMask: o.keyMask,
    bias: o.bias,
    keys: pages.map(({ k }) => k),
    values: pages.map(({ v }) => v),
  };
  const attrs = { ...headAttrs(D, o), rows: pages.map(({ rows }) => rows ?? null) };
  return runKernel('NnPagedAttention', inputs, attrs) as Tensor3D;
}

function headAttrs(D: number, { numHeads, scale, causal }: AttentionOptions) {
  return { numHeads, scale: scale ?? (D / numHeads) ** -0.5, causal: causal ?? false };
}

function checkAttention(op: string, q: Tensor3D, [k, v]: [Tensor3D, Tensor3D], o: AttentionOptions): void {
  const D = q.shape[2];
  if (D % o.numHeads !== 0) throw new Error(`${op}: width ${D} is not divisible by ${o.numHeads} heads`);
  if (k.shape[2] !== D || !tf.util.arraysEqual(v.shape, k.shape))
    throw new Error(
      `${op}: q [${q.shape}] expects k and v of one shape and width ${D}, found k [${k.shape}], v [${v.shape}]`,
    );
}

function checkBias(op: string, { shape: [B, Tq] }: Tensor3D, Tk: number, o: AttentionOptions): void {
  if (!o.bias) return;
  const [items, ...rest] = o.bias.shape;
  if ((items !== 1 && items !== B) || !tf.util.arraysEqual(rest, [o.numHeads, Tq, Tk]))
    throw new Error(
      `${op}: expected a bias [1 or ${B}, ${o.numHeads}, ${Tq}, ${Tk}], found [${o.bias.shape}]`,
    );
}

/** Used instead of −∞ for masked scores: exp of it is exactly 0, and arithmetic with it stays finite. */
const HIDDEN = -1e30;

/** [B, T, D] → [B, H, T, D/H]. */
function splitHeads(x: Tensor, numHeads: number): Tensor {
  const [B, T, D] = x.shape;
  return tf.transpose(tf.reshape(x, [B, T, numHeads, D / numHeads]), [0, 2, 1, 3]);
}

/** [B, H, T, d] → [B, T, H·d]. */
function mergeHeads(x: Tensor): Tensor {
  const [B, H, T, d] = x.shape;
  return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [B, T, H * d]);
}

/** 1 if query i may attend to key j, else 0: [B or 1, 1, Tq, Tk]. */
function visible(Tq: number, Tk: number, causal: boolean, keyMask: Tensor | undefined): Tensor {
  const rows = Array.from({ length: Tq }, (_, i) =>
    Array.from({ length: Tk }, (_, j) => Number(!causal || j <= i + Tk - Tq)),
  );
  const order = tf.tensor(rows.flat(), [1, 1, Tq, Tk], 'float32');
  return keyMask ? tf.mul(order, tf.reshape(keyMask, [keyMask.shape[0], 1, 1, Tk])) : order;
}

/** Probabilities before dropout [B, H, Tq, Tk] and their log-sum-exp [B, H, Tq]. */
function attentionWeights(
  { q, k, keyMask, bias }: Omit<KernelInputs<'NnAttention', Tensor>, 'v'>,
  a: Attrs,
): { probs: Tensor; lse: Tensor } {
  const scaled = tf.mul(matMul(splitHeads(q, a.numHeads), splitHeads(k, a.numHeads), false, true), a.scale);
  const scores = bias ? tf.add(scaled, bias) : scaled;
  const seen = visible(q.shape[1] as number, k.shape[1] as number, a.causal, keyMask);
  const masked = tf.add(tf.mul(scores, seen), tf.mul(tf.sub(1, seen), HIDDEN)); // [B, H, Tq, Tk]
  const top = tf.max(masked, 3, true);
  const weights = tf.mul(tf.exp(tf.sub(masked, top)), seen);
  const total = tf.sum(weights, 3, true);
  const empty = tf.cast(tf.equal(total, 0), 'float32');
  const probs = tf.div(weights, tf.add(total, empty));
  const lse = tf.add(
    tf.mul(tf.add(top, tf.log(tf.add(total, empty))), tf.sub(1, empty)),
    tf.mul(empty, HIDDEN),
  );
  return { probs, lse: tf.squeeze(lse, [3]) };
}

function attentionDropout(probs: Tensor, a: Attrs): Tensor {
  return a.dropoutRate > 0 ? dropoutMask(probs.shape, a.dropoutRate, a.key0, a.key1) : tf.scalar(1);
}

function composed(inputs: KernelInputs<'NnAttention', Tensor>, a: Attrs): [Tensor, Tensor] {
  const { probs, lse } = attentionWeights(inputs, a);
  const kept = tf.mul(probs, attentionDropout(probs, a));
  return [mergeHeads(matMul(kept, splitHeads(inputs.v, a.numHeads))), lse];
}

function composedPages(
  { q, keyMask, bias, keys, values }: KernelInputs<'NnPagedAttention', Tensor>,
  a: KernelAttrs<'NnPagedAttention'>,
): Tensor {
  const joined = (pages: Tensor[]) =>
    tf.concat(
      pages.map((page, i) => (a.rows[i] ? tf.gather(page, a.rows[i]) : page)),
      1,
    ); // [B, Tk, D]
  const none = { dropoutRate: 0, key0: 0, key1: 0 };
  return composed({ q, k: joined(keys), v: joined(values), keyMask, bias }, { ...a, ...none })[0];
}

/** Gradient of the scores after the bias, and the probabilities after dropout, both [B, H, Tq, Tk]. */
function scoresGrad(
  inputs: KernelInputs<'NnAttentionGrad', Tensor>,
  a: Attrs,
): { dscores: Tensor; kept: Tensor } {
  const { probs } = attentionWeights(inputs, a);
  const keep = attentionDropout(probs, a);
  const [v, dout] = [inputs.v, inputs.dout].map((x) => splitHeads(x, a.numHeads));
  const dprobs = tf.mul(matMul(dout, v, false, true), keep);
  const dscores = tf.mul(probs, tf.sub(dprobs, tf.sum(tf.mul(dprobs, probs), 3, true))); // softmax backward
  return { dscores, kept: tf.mul(probs, keep) };
}

function composedGrad(
  inputs: KernelInputs<'NnAttentionGrad', Tensor>,
  a: Attrs,
): KernelOutputs<'NnAttentionGrad', Tensor> {
  const [q, k, dout] = [inputs.q, inputs.k, inputs.dout].map((x) => splitHeads(x, a.numHeads));
  const { dscores, kept } = scoresGrad(inputs, a);
  const dv = matMul(kept, dout, true, false);
  const dq = tf.mul(matMul(dscores, k), a.scale);
  const dk = tf.mul(matMul(dscores, q, true, false), a.scale);
  return [mergeHeads(dq), mergeHeads(dk), mergeHeads(dv)];
}

function composedGradBias(inputs: KernelInputs<'NnAttentionGradBias', Tensor>, a: Attrs): Tensor {
  const { dscores } = scoresGrad(inputs, a);
  return inputs.bias.shape[0] === 1 ? tf.sum(dscores, 0, true) : dscores;
}

export default {
  references: {
    NnAttention: composed,
    NnAttentionGrad: composedGrad,
    NnAttentionGradBias: composedGradBias,
    NnPagedAttention: composedPages,
  },
  gradients: [],
} satisfies KernelSet;
