/**
 * Every kernel of `kernels.ts` as a plain composition of tfjs ops: slow, obvious, and right on any backend.
 * It is the oracle that backends' own kernels are tested against.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor1D, Tensor3D } from '@tensorflow/tfjs-core';
import type { KernelName, KernelTable } from './kernels';
import { uniform } from './rng';

type Inputs = Record<string, Tensor>;
type Attrs<K extends KernelName> = KernelTable[K]['attrs'];
type Composition<K extends KernelName> = (inputs: Inputs, attrs: Attrs<K>) => Tensor | Tensor[];
/** Stands for −∞ where a query sees no key; exp of it is exactly 0 and it stays finite in arithmetic. */
const HIDDEN = -1e30;

/** 1 / (1 − rate) where the stream's uniform is ≥ rate, else 0; shaped like the tensor it multiplies. */
function dropoutMask(shape: number[], rate: number, key0: number, key1: number): Tensor {
  const draws = uniform({ k0: key0, k1: key1 }, tf.util.sizeFromShape(shape));
  return tf.tensor(
    draws.map((u) => (u >= rate ? 1 / (1 - rate) : 0)),
    shape,
    'float32',
  );
}

/** a·b of matrices (or stacks of them), either one transposed first: wasm's fast product takes plain operands only. */
function product(a: Tensor, b: Tensor, transposeA = false, transposeB = false): Tensor {
  const flip = (x: Tensor) =>
    tf.transpose(
      x,
      [...x.shape.keys()].map((d) => (d < x.rank - 2 ? d : 2 * x.rank - 3 - d)),
    );
  return tf.matMul(transposeA ? flip(a) : a, transposeB ? flip(b) : b);
}

/** [..., N] → [M, N]. */
function rows(x: Tensor): Tensor {
  return x.rank === 2 ? x : tf.reshape(x, [-1, x.shape[x.rank - 1]]);
}

/** [M, N] → [..., N] with the leading dimensions of `x`. */
function likeRows(y: Tensor, x: Tensor): Tensor {
  return x.rank === 2 ? y : tf.reshape(y, [...x.shape.slice(0, -1), y.shape[1] as number]);
}

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

/** 1 where query i may see key j, [B or 1, 1, Tq, Tk]. */
function visible(Tq: number, Tk: number, causal: boolean, keyMask: Tensor | undefined): Tensor {
  const rows = Array.from({ length: Tq }, (_, i) =>
    Array.from({ length: Tk }, (_, j) => Number(!causal || j <= i + Tk - Tq)),
  );
  const order = tf.tensor(rows.flat(), [1, 1, Tq, Tk], 'float32');
  return keyMask ? tf.mul(order, tf.reshape(keyMask, [keyMask.shape[0], 1, 1, Tk])) : order;
}

/** Probabilities before dropout [B, H, Tq, Tk] and their log-sum-exp [B, H, Tq]. */
function attentionWeights(inputs: Inputs, a: Attrs<'NnAttention'>): { probs: Tensor; lse: Tensor } {
  const { q, k, keyMask } = inputs;
  const scores = tf.mul(product(splitHeads(q, a.numHeads), splitHeads(k, a.numHeads), false, true), a.scale);
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

function attentionDropout(probs: Tensor, a: Attrs<'NnAttention'>): Tensor {
  return a.dropoutRate > 0 ? dropoutMask(probs.shape, a.dropoutRate, a.key0, a.key1) : tf.scalar(1);
}

function attention(inputs: Inputs, a: Attrs<'NnAttention'>): Tensor[] {
  const { probs, lse } = attentionWeights(inputs, a);
  const kept = tf.mul(probs, attentionDropout(probs, a));
  return [mergeHeads(product(kept, splitHeads(inputs.v, a.numHeads))), lse];
}

function pagedAttention({ q, keyMask, ...pages }: Inputs, a: Attrs<'NnPagedAttention'>): Tensor {
  const list = Object.values(pages);
  const joined = (part: 0 | 1) => {
    const parts = a.rows.map((rows, i) => (rows ? tf.gather(list[2 * i + part], rows) : list[2 * i + part]));
    return tf.concat(parts, 1); // [B, Tk, D]
  };
  const none = { dropoutRate: 0, key0: 0, key1: 0 };
  return attention({ q, k: joined(0), v: joined(1), keyMask }, { ...a, ...none })[0];
}

function attentionGrad(inputs: Inputs, a: Attrs<'NnAttentionGrad'>): Tensor[] {
  const [q, k, v, dout] = [inputs.q, inputs.k, inputs.v, inputs.dout].map((x) => splitHeads(x, a.numHeads));
  const { probs } = attentionWeights(inputs, a);
  const keep = attentionDropout(probs, a);
  const dv = product(tf.mul(probs, keep), dout, true, false);
  const dprobs = tf.mul(product(dout, v, false, true), keep);
  const dscores = tf.mul(probs, tf.sub(dprobs, tf.sum(tf.mul(dprobs, probs), 3, true))); // softmax backward
  const dq = tf.mul(product(dscores, k), a.scale);
  const dk = tf.mul(product(dscores, q, true, false), a.scale);
  return [dq, dk, dv].map(mergeHeads);
}

/** What NnDropout does, nothing at rate 0. */
function dropped(x: Tensor, { rate, key0, key1 }: Attrs<'NnDropout'>): Tensor {
  return rate > 0 ? tf.mul(x, dropoutMask(x.shape, rate, key0, key1)) : x;
}

function linear({ x, weight, bias, residual }: Inputs, { activation }: Attrs<'NnLinear'> = {}): Tensor {
  let y = likeRows(product(rows(x), weight, false, true), x);
  if (bias) y = tf.add(y, bias);
  if (activation) y = activation === 'gelu' ? gelu({ x: y }) : tf.relu(y);
  return residual ? tf.add(y, residual) : y;
}

function loraLinear(inputs: Inputs, a: Attrs<'NnLoraLinear'>): Tensor[] {
  const { x, lora_A, lora_B } = inputs;
  const low = linear({ x: dropped(x, a), weight: lora_A });
  return [tf.add(linear(inputs), linear({ x: tf.mul(low, a.scaling), weight: lora_B })), low];
}

/** Gradient of low, [M, r]. */
function lowGrad({ dy, lora_B }: Inputs, { scaling }: Attrs<'NnLoraLinear'>): Tensor {
  return tf.mul(product(rows(dy), lora_B), scaling);
}

function loraLinearGradInput(inputs: Inputs, a: Attrs<'NnLoraLinear'>): Tensor {
  const { dy, weight, lora_A } = inputs;
  const dx = tf.add(product(rows(dy), weight), dropped(product(lowGrad(inputs, a), lora_A), a));
  return likeRows(dx, dy);
}

function layerNorm({ x, weight, bias }: Inputs, { eps }: Attrs<'NnLayerNorm'>): Tensor[] {
  const mean = tf.mean(x, -1, true);
  const centred = tf.sub(x, mean);
  const rstd = tf.rsqrt(tf.add(tf.mean(tf.square(centred), -1, true), eps));
  const y = tf.add(tf.mul(tf.mul(centred, rstd), weight), bias);
  return [y, tf.reshape(mean, [-1]), tf.reshape(rstd, [-1])];
}

/** (x − mean)·rstd [M, N]. */
function normalized({ x, mean, rstd }: Inputs): Tensor {
  return tf.mul(tf.sub(rows(x), tf.expandDims(mean, 1)), tf.expandDims(rstd, 1));
}

function layerNormGradInput(inputs: Inputs): Tensor {
  const xhat = normalized(inputs);
  const g = tf.mul(rows(inputs.dy), inputs.weight);
  const inner = tf.sub(tf.sub(g, tf.mean(g, 1, true)), tf.mul(xhat, tf.mean(tf.mul(g, xhat), 1, true)));
  return likeRows(tf.mul(inner, tf.expandDims(inputs.rstd, 1)), inputs.x);
}

function gelu({ x }: Inputs): Tensor {
  return tf.mul(tf.mul(x, 0.5), tf.add(1, tf.erf(tf.mul(x, Math.SQRT1_2))));
}

function geluGrad({ dy, x }: Inputs): Tensor {
  const cdf = tf.mul(0.5, tf.add(1, tf.erf(tf.mul(x, Math.SQRT1_2))));
  const pdf = tf.mul(1 / Math.sqrt(2 * Math.PI), tf.exp(tf.mul(-0.5, tf.square(x))));
  return tf.mul(dy, tf.add(cdf, tf.mul(x, pdf)));
}

/** Rows that count, as 0/1 [M, 1], and the target distribution [M, V]. */
function targets(logits: Tensor, labels: Tensor, smoothing: number): { counted: Tensor; target: Tensor } {
  const V = logits.shape[1] as number;
  const counted = tf.cast(tf.greaterEqual(labels, 0), 'float32');
  const onehot = tf.cast(tf.oneHot(tf.cast(tf.maximum(labels, 0), 'int32'), V), 'float32');
  return { counted: tf.expandDims(counted, 1), target: tf.add(tf.mul(onehot, 1 - smoothing), smoothing / V) };
}

function crossEntropy({ logits, labels }: Inputs, a: Attrs<'NnCrossEntropy'>): Tensor[] {
  const { counted, target } = targets(logits, labels, a.labelSmoothing);
  const lse = tf.logSumExp(logits, 1, true);
  const rows = tf.sum(tf.mul(target, tf.sub(lse, logits)), 1, true);
  return [tf.div(tf.sum(tf.mul(rows, counted)), tf.sum(counted)), tf.squeeze(lse, [1])];
}

function crossEntropyGrad({ logits, labels, lse, dloss }: Inputs, a: Attrs<'NnCrossEntropyGrad'>): Tensor {
  const { counted, target } = targets(logits, labels, a.labelSmoothing);
  const probs = tf.exp(tf.sub(logits, tf.expandDims(lse, 1)));
  return tf.mul(tf.mul(tf.sub(probs, target), counted), tf.div(dloss, tf.sum(counted)));
}

function linearCrossEntropy({ x, weight, labels }: Inputs, a: Attrs<'NnLinearCrossEntropy'>): Tensor[] {
  return crossEntropy({ logits: product(x, weight, false, true), labels }, a);
}

/** Gradient of the logits [M, V] that `linearCrossEntropy` forgot. */
function forgottenGrad(inputs: Inputs, a: Attrs<'NnLinearCrossEntropy'>): Tensor {
  const { x, weight, labels, lse, dloss } = inputs;
  return crossEntropyGrad({ logits: product(x, weight, false, true), labels, lse, dloss }, a);
}

function adamW(inputs: Inputs, a: Attrs<'NnAdamW'>): Tensor[] {
  const [scale, ...tensors] = Object.values(inputs);
  return a.weightDecays.flatMap((weightDecay, i) => {
    const [param, grad, m, v] = tensors.slice(4 * i, 4 * i + 4);
    const g = tf.mul(grad, scale);
    const m1 = tf.add(tf.mul(m, a.beta1), tf.mul(g, 1 - a.beta1));
    const v1 = tf.add(tf.mul(v, a.beta2), tf.mul(tf.square(g), 1 - a.beta2));
    const denominator = tf.add(tf.sqrt(tf.div(v1, a.c2)), a.eps);
    const decayed = tf.mul(param, 1 - a.lr * weightDecay);
    return [tf.sub(decayed, tf.mul(tf.div(m1, denominator), a.lr / a.c1)), m1, v1];
  });
}

const compositions: { [K in KernelName]: Composition<K> } = {
  NnLinear: linear,
  NnLinearGradInput: ({ dy, weight }) => likeRows(product(rows(dy), weight), dy),
  NnLinearGradWeight: ({ dy, x }) => product(rows(dy), rows(x), true, false),
  NnLoraLinear: loraLinear,
  NnLoraLinearGradInput: loraLinearGradInput,
  NnLoraLinearGradA: (inputs, a) => product(lowGrad(inputs, a), rows(dropped(inputs.x, a)), true, false),
  NnLoraLinearGradB: ({ dy, low }, { scaling }) => product(rows(dy), rows(tf.mul(low, scaling)), true, false),
  NnSumRows: ({ x }) => tf.sum(rows(x), 0),
  NnLayerNorm: layerNorm,
  NnLayerNormGradInput: layerNormGradInput,
  NnLayerNormGradWeight: (inputs) => tf.sum(tf.mul(rows(inputs.dy), normalized(inputs)), 0),
  NnGelu: gelu,
  NnGeluGrad: geluGrad,
  NnRelu: ({ x }) => [tf.relu(x), tf.greater(x, 0)],
  NnReluGrad: ({ dy, positive }) => tf.mul(dy, tf.cast(positive, 'float32')),
  NnAttention: attention,
  NnAttentionGrad: attentionGrad,
  NnPagedAttention: pagedAttention,
  NnGatherRows: ({ x, indices }) => tf.gather(x, indices as Tensor1D, 0),
  NnScatterAddRows: ({ dy, indices }, { rows }) =>
    product(tf.cast(tf.oneHot(indices as Tensor1D, rows), 'float32'), dy, true, false),
  NnCrossEntropy: crossEntropy,
  NnCrossEntropyGrad: crossEntropyGrad,
  NnLinearCrossEntropy: linearCrossEntropy,
  NnLinearCrossEntropyGradInput: (inputs, a) => product(forgottenGrad(inputs, a), inputs.weight),
  NnLinearCrossEntropyGradWeight: (inputs, a) => product(forgottenGrad(inputs, a), inputs.x, true, false),
  NnDropout: ({ x }, a) => dropped(x, a),
  NnSquaredSum: (xs) => tf.addN(Object.values(xs).map((x) => tf.sum(tf.square(x)))),
  NnAdamW: adamW,
};

/** Registers the composition of every kernel that `backendName` does not provide itself. */
export function registerReferenceKernels(backendName: string): void {
  for (const [kernelName, compose] of Object.entries(compositions)) {
    if (tf.getKernel(kernelName, backendName)) continue;
    tf.registerKernel({
      kernelName,
      backendName,
      kernelFunc: ({ inputs, attrs }) =>
        tf.tidy(() =>
          (compose as Composition<KernelName>)(inputs as Inputs, (attrs ?? {}) as never),
        ) as Tensor3D,
    });
  }
}
