/**
 * The kernels that this project adds to tfjs: inputs, attributes and outputs. T is the tensor type: Tensor in calls of this package,
 * TensorInfo in backends. `T[]` is a list of tensors; several outputs are returned in this order. Every kernel has a composition of tfjs
 * ops beside its op (ops/), which runs on any backend; a backend may override it. All tensors are float32 unless marked int32 or bool.
 * M, N, … are any sizes; `...` is any number of leading dimensions, together M rows.
 */
export interface Kernels<T> {
  /**
   * y = activation(x·weightᵀ + bias) + residual. x [..., in], weight [out, in], bias [out], residual [..., out] → y [..., out].
   * With an activation it has no gradient.
   */
  NnLinear: {
    inputs: { x: T; weight: T; bias?: T; residual?: T };
    attrs: {
      activation?: Activation;
      /** x has at least 14 bits where the precision rounds it to 8. Not with a bias, an activation or a residual. */
      preciseInput?: boolean;
    };
    outputs: T;
  };
  /** dx = dy·weight. dy [..., out], weight [out, in] → dx [..., in]. */
  NnLinearGradInput: { inputs: { dy: T; weight: T }; attrs: NoAttrs; outputs: T };
  /** dW = dyᵀ·x, summed over rows. dy [..., out], x [..., in] → [out, in]. */
  NnLinearGradWeight: { inputs: { dy: T; x: T }; attrs: NoAttrs; outputs: T };
  /**
   * NnLinear with a low-rank addition: low = dropped(x)·lora_Aᵀ; y = x·weightᵀ + bias + scaling·low·lora_Bᵀ + residual.
   * lora_A [r, in], lora_B [out, r], residual [..., out] → y [..., out], low [..., r]. dropped is NnDropout, or the identity at
   * rate 0.
   */
  NnLoraLinear: {
    inputs: { x: T; weight: T; bias?: T; residual?: T; lora_A: T; lora_B: T };
    attrs: LoraAttrs;
    outputs: [y: T, low: T];
  };
  /** dlow = scaling·dy·lora_B [..., r]; the two below read it. */
  NnLoraLinearGradLow: { inputs: { dy: T; lora_B: T }; attrs: LoraAttrs; outputs: T };
  /** dx = dy·weight + dropped(dlow·lora_A) [..., in]. */
  NnLoraLinearGradInput: {
    inputs: { dy: T; weight: T; lora_A: T; dlow: T };
    attrs: LoraAttrs;
    outputs: T;
  };
  /** d lora_A [r, in] = dlowᵀ·dropped(x), summed over rows. */
  NnLoraLinearGradA: { inputs: { x: T; dlow: T }; attrs: LoraAttrs; outputs: T };
  /** d lora_B [out, r] = dyᵀ·(scaling·low), summed over rows. */
  NnLoraLinearGradB: { inputs: { dy: T; low: T }; attrs: LoraAttrs; outputs: T };
  /** Sum over rows. x [..., N] → [N]. */
  NnSumRows: { inputs: { x: T }; attrs: NoAttrs; outputs: T };
  /** x [..., N], weight [N], bias [N] → y [..., N], mean [M], rstd [M]; biased variance, rstd = 1/√(var + eps). */
  NnLayerNorm: {
    inputs: { x: T; weight: T; bias: T };
    attrs: { eps: number };
    outputs: [y: T, mean: T, rstd: T];
  };
  /** dy, x [..., N], weight [N], mean, rstd [M] → dx [..., N]. */
  NnLayerNormGradInput: {
    inputs: { dy: T; x: T; weight: T; mean: T; rstd: T };
    attrs: NoAttrs;
    outputs: T;
  };
  /** dy, x [..., N], mean, rstd [M] → dweight [N] = Σ_rows dy·(x − mean)·rstd. */
  NnLayerNormGradWeight: { inputs: { dy: T; x: T; mean: T; rstd: T }; attrs: NoAttrs; outputs: T };
  /** RMSNorm. x [..., N], weight [N] → y [..., N] = x·rstd·weight, rstd [M] = 1/√(mean(x²) + eps). */
  NnRmsNorm: { inputs: { x: T; weight: T }; attrs: { eps: number }; outputs: [y: T, rstd: T] };
  /** dy, x [..., N], weight [N], rstd [M] → dx [..., N]. */
  NnRmsNormGradInput: { inputs: { dy: T; x: T; weight: T; rstd: T }; attrs: NoAttrs; outputs: T };
  /** dy, x [..., N], rstd [M] → dweight [N] = Σ_rows dy·x·rstd. */
  NnRmsNormGradWeight: { inputs: { dy: T; x: T; rstd: T }; attrs: NoAttrs; outputs: T };
  /** Exact GELU, x·Φ(x) with erf. Any shape. */
  NnGelu: { inputs: { x: T }; attrs: NoAttrs; outputs: T };
  /** dy, x → dx, same shape. */
  NnGeluGrad: { inputs: { dy: T; x: T }; attrs: NoAttrs; outputs: T };
  /** gelu_new(gate)·x, gelu_new(g) = 0.5·g·(1 + tanh(√(2/π)·(g + 0.044715·g³))). Both of one shape, any. */
  NnGatedGelu: { inputs: { gate: T; x: T }; attrs: NoAttrs; outputs: T };
  /** dy, gate, x, all of one shape. */
  NnGatedGeluGrad: { inputs: { dy: T; gate: T; x: T }; attrs: NoAttrs; outputs: [dgate: T, dx: T] };
  /** max(x, 0), and where x > 0 (bool). Any shape. */
  NnRelu: { inputs: { x: T }; attrs: NoAttrs; outputs: [y: T, positive: T] };
  /** dy, positive (bool) → dx = dy where positive, else 0. */
  NnReluGrad: { inputs: { dy: T; positive: T }; attrs: NoAttrs; outputs: T };
  /**
   * Multi-head attention. q [B, Tq, D], k and v [B, Tk, D], keyMask [B, Tk] (1 keep, 0 hide); head h owns the columns
   * h·D/H … (h+1)·D/H. bias [1 or B, H, Tq, Tk], finite, is added to the scaled scores; with 1 for every item.
   * → out [B, Tq, D], lse [B, H, Tq] where lse is the log-sum-exp of the scaled, biased and masked scores.
   * `causal`: query i attends to keys j ≤ i + Tk − Tq. A query without visible keys yields 0, with lse = −1e30 instead of −∞.
   * `dropoutRate` > 0 drops probabilities after the softmax: element ((b·H + h)·Tq + i)·Tk + j of the stream `key0, key1`
   * (see rng.ts) is kept iff its uniform ≥ rate, and scaled by 1/(1 − rate).
   */
  NnAttention: {
    inputs: { q: T; k: T; v: T; keyMask?: T; bias?: T };
    attrs: AttentionAttrs;
    outputs: [out: T, lse: T];
  };
  /** q, k, v, keyMask, bias, out, lse as above, dout [B, Tq, D]. Same attributes. */
  NnAttentionGrad: {
    inputs: { q: T; k: T; v: T; keyMask?: T; bias?: T; out: T; lse: T; dout: T };
    attrs: AttentionAttrs;
    outputs: [dq: T, dk: T, dv: T];
  };
  /** Inputs as NnAttentionGrad → dbias, shaped like the bias and summed over the items that share it. */
  NnAttentionGradBias: {
    inputs: { q: T; k: T; v: T; keyMask?: T; bias: T; out: T; lse: T; dout: T };
    attrs: AttentionAttrs;
    outputs: T;
  };
  /**
   * NnAttention without dropout and without a backward pass, with keys and values in pages, in order of position:
   * keys[i] and values[i] are [Bᵢ, Tᵢ, D], Tk = Σ Tᵢ; item b of q reads row rows[i][b] of page i, or row b if rows[i] is
   * null. → out [B, Tq, D].
   */
  NnPagedAttention: {
    inputs: { q: T; keyMask?: T; bias?: T; keys: T[]; values: T[] };
    attrs: { numHeads: number; scale: number; causal: boolean; rows: (Int32Array | null)[] };
    outputs: T;
  };
  /**
   * L layers of a decoder at new positions, without dropout and without a backward pass: of each, NnLayerNorm, NnLinear (NnLoraLinear) and
   * causal NnPagedAttention to the pages and then to the new keys and values; without pages, NnAttention. Lists have layer after layer.
   * norms: weight and bias [D] of both; weights of q, k, v, out [D, D], fc1 [F, D] and fc2 [D, F]; keys and values of each page. `biased`
   * and `adapted`: which of the 6·L weights the biases and the pairs of lora_A and lora_B belong to. x [B, T, D] → y and, of each layer,
   * k and v, all [B, T, D].
   */
  NnDecoderLayers: {
    inputs: LayerLists<T> & { x: T; keyMask?: T; keys: T[]; values: T[] };
    attrs: DecoderLayersAttrs;
    outputs: [y: T, ...keysAndValues: T[]];
  };
  /**
   * L pre-norm layers of an encoder, without dropout and without a backward pass: of each, NnLayerNorm, NnLinear (NnLoraLinear) and
   * NnAttention. Lists as for NnDecoderLayers, but of 4·L weights: qkv [3·D, D], projection [D, D], fc1 [F, D] and fc2 [D, F].
   * x [B, T, D] → [B, T, D].
   */
  NnEncoderLayers: {
    inputs: LayerLists<T> & { x: T };
    attrs: EncoderLayersAttrs;
    outputs: T;
  };
  /**
   * Causal attention of packed rows (`Packing`). q, k, v [N, D] → out [N, D]. Equal to NnAttention of the whole rows, prefix and text,
   * padded on the right to the longest, T: [B, T, D]. The output of a prefix is that of its first row, and so is its dropout.
   * lse [B, H, T] is of the padded rows; only the backward pass reads it.
   */
  NnPackedAttention: {
    inputs: { q: T; k: T; v: T };
    attrs: PackedAttentionAttrs;
    outputs: [out: T, lse: T];
  };
  /** q, k, v, out, lse as above, dout [N, D]. Same attributes. */
  NnPackedAttentionGrad: {
    inputs: { q: T; k: T; v: T; out: T; lse: T; dout: T };
    attrs: PackedAttentionAttrs;
    outputs: [dq: T, dk: T, dv: T];
  };
  /** Rows of a table. x [N, D], indices int32 [M] (each in 0 … N − 1) → [M, D]. Serves embeddings and row selection. */
  NnGatherRows: { inputs: { x: T; indices: T }; attrs: NoAttrs; outputs: T };
  /** dy [M, D], indices int32 [M] → dx [rows, D], summing repeated rows. */
  NnScatterAddRows: { inputs: { dy: T; indices: T }; attrs: { rows: number }; outputs: T };
  /**
   * Mean cross-entropy over the rows whose label is ≥ 0. logits [M, V], labels int32 [M] (negative: ignored) →
   * loss [], lse [M]. With no labelled row the loss is NaN, as in PyTorch. Target = (1 − s)·onehot + s/V.
   */
  NnCrossEntropy: { inputs: { logits: T; labels: T }; attrs: LossAttrs; outputs: [loss: T, lse: T] };
  /** logits, labels, lse as above, dloss [] → dlogits [M, V]. */
  NnCrossEntropyGrad: {
    inputs: { logits: T; labels: T; lse: T; dloss: T };
    attrs: LossAttrs;
    outputs: T;
  };
  /**
   * NnCrossEntropy of the logits x·weightᵀ, without holding all of them in memory. x [M, D], weight [V, D], labels int32 [M] →
   * loss [], lse [M].
   */
  NnLinearCrossEntropy: {
    inputs: { x: T; weight: T; labels: T };
    attrs: LossAttrs;
    outputs: [loss: T, lse: T];
  };
  /** x, weight, labels, lse as above, dloss [] → dx [M, D]. */
  NnLinearCrossEntropyGradInput: {
    inputs: { x: T; weight: T; labels: T; lse: T; dloss: T };
    attrs: LossAttrs;
    outputs: T;
  };
  /** x, weight, labels, lse as above, dloss [] → dweight [V, D]. */
  NnLinearCrossEntropyGradWeight: {
    inputs: { x: T; weight: T; labels: T; lse: T; dloss: T };
    attrs: LossAttrs;
    outputs: T;
  };
  /** Keeps flat element e iff uniform(key)[e] ≥ rate (see rng.ts) and scales by 1/(1 − rate). Any shape; its own gradient. */
  NnDropout: { inputs: { x: T }; attrs: DropoutAttrs; outputs: T };
  /** Σ x² over all elements of a list of tensors → []. */
  NnSquaredSum: { inputs: { xs: T[] }; attrs: NoAttrs; outputs: T };
  /**
   * One AdamW update (Loshchilov & Hutter 2019, as torch.optim.AdamW) of lists of tensors: g = grad·scale;
   * p ← p·(1 − lr·weightDecay); m ← m + (1 − β1)·(g − m); v ← β2·v + (1 − β2)·g²; p ← p − lr/c1 · m / (√(v/c2) + eps),
   * c1 = 1 − β1^t, c2 = 1 − β2^t. scale []; params, grads, m and v have one size at each place, and `weightDecays` a number.
   * → all new params, then all new m, then all new v.
   */
  NnAdamW: {
    inputs: { scale: T; params: T[]; grads: T[]; m: T[]; v: T[] };
    attrs: {
      lr: number;
      beta1: number;
      beta2: number;
      eps: number;
      weightDecays: number[];
      c1: number;
      c2: number;
    };
    outputs: T[];
  };
}

/**
 * Rows without pads, N positions in all: P prefixes of Q positions each, then the texts of B rows one after the other. Row b is the
 * prefix of its picture and then its text. Without prefixes P and Q are 0, and a text is a whole row.
 */
export interface Packing {
  /** P */
  prefixes: number;
  /** Q */
  prefixLength: number;
  /** `[B]`: the prefix of each row. */
  pictures: Int32Array;
  /** `[B + 1]`: text b is at the positions starts[b] … starts[b + 1] − 1. */
  starts: Int32Array;
}

/** `gelu` is NnGelu, `relu` NnRelu. */
export type Activation = 'gelu' | 'relu';

type NoAttrs = Record<string, never>;
export interface DropoutAttrs {
  rate: number;
  key0: number;
  key1: number;
}
export interface LoraAttrs extends DropoutAttrs {
  scaling: number;
}
interface AttentionAttrs {
  numHeads: number;
  scale: number;
  causal: boolean;
  dropoutRate: number;
  key0: number;
  key1: number;
}
/** Tensors of many layers, layer after layer. */
export interface LayerLists<T> {
  norms: T[];
  weights: T[];
  biases: T[];
  lora_A: T[];
  lora_B: T[];
}
export interface LayerListsAttrs {
  biased: number[];
  adapted: number[];
  scalings: number[];
}
interface EncoderLayersAttrs extends LayerListsAttrs {
  numHeads: number;
  eps: number;
  activation: Activation;
}
interface DecoderLayersAttrs extends EncoderLayersAttrs {
  normFirst: boolean;
  /** As in NnPagedAttention. */
  rows: (Int32Array | null)[];
}
interface PackedAttentionAttrs extends Omit<AttentionAttrs, 'causal'> {
  packing: Packing;
}
export interface LossAttrs {
  labelSmoothing: number;
}

export type KernelName = keyof Kernels<unknown>;
export type KernelInputs<K extends KernelName, T> = Kernels<T>[K]['inputs'];
export type KernelAttrs<K extends KernelName> = Kernels<unknown>[K]['attrs'];
export type KernelOutputs<K extends KernelName, T> = Kernels<T>[K]['outputs'];
