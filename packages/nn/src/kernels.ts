/**
 * The kernels that this project adds to tfjs: names, inputs, attributes and outputs.
 * `reference.ts` registers a plain composition of each for every backend; a backend may override any of them.
 * All tensors are float32 unless marked int32 or bool; M, N, … are free sizes; kernels receive exactly these ranks, where `...` stands
 * for any leading dimensions, together M rows.
 */
export interface KernelTable {
  /**
   * y = activation(x·weightᵀ + bias) + residual. x [..., in], weight [out, in], bias [out]?, residual [..., out]? → y [..., out].
   * With an activation it has no gradient.
   */
  NnLinear: { inputs: 'x' | 'weight' | 'bias?' | 'residual?'; attrs: { activation?: Activation } };
  /** dx = dy·weight. dy [..., out], weight [out, in] → dx [..., in]. */
  NnLinearGradInput: { inputs: 'dy' | 'weight'; attrs: Record<string, never> };
  /** dW = dyᵀ·x, summed over rows. dy [..., out], x [..., in] → [out, in]. */
  NnLinearGradWeight: { inputs: 'dy' | 'x'; attrs: Record<string, never> };
  /**
   * NnLinear with a low-rank addition: low = dropped(x)·lora_Aᵀ; y = x·weightᵀ + bias + scaling·low·lora_Bᵀ + residual.
   * lora_A [r, in], lora_B [out, r], residual [..., out]? → [y [..., out], low [..., r]]. dropped is NnDropout, or nothing at
   * rate 0.
   */
  NnLoraLinear: { inputs: 'x' | 'weight' | 'bias?' | 'residual?' | 'lora_A' | 'lora_B'; attrs: LoraAttrs };
  /** dx = dy·weight + dropped(scaling·dy·lora_B·lora_A) [..., in]. */
  NnLoraLinearGradInput: { inputs: 'dy' | 'weight' | 'lora_A' | 'lora_B'; attrs: LoraAttrs };
  /** d lora_A [r, in] = (scaling·dy·lora_B)ᵀ·dropped(x), summed over rows. */
  NnLoraLinearGradA: { inputs: 'dy' | 'x' | 'lora_B'; attrs: LoraAttrs };
  /** d lora_B [out, r] = dyᵀ·(scaling·low), summed over rows. */
  NnLoraLinearGradB: { inputs: 'dy' | 'low'; attrs: LoraAttrs };
  /** Sum over rows. x [..., N] → [N]. */
  NnSumRows: { inputs: 'x'; attrs: Record<string, never> };
  /** x [..., N], weight [N], bias [N] → [y [..., N], mean [M], rstd [M]]; biased variance, rstd = 1/√(var + eps). */
  NnLayerNorm: { inputs: 'x' | 'weight' | 'bias'; attrs: { eps: number } };
  /** dy, x [..., N], weight [N], mean, rstd [M] → dx [..., N]. */
  NnLayerNormGradInput: { inputs: 'dy' | 'x' | 'weight' | 'mean' | 'rstd'; attrs: Record<string, never> };
  /** dy, x [..., N], mean, rstd [M] → dweight [N] = Σ_rows dy·(x − mean)·rstd. */
  NnLayerNormGradWeight: { inputs: 'dy' | 'x' | 'mean' | 'rstd'; attrs: Record<string, never> };
  /** Exact GELU, x·Φ(x) with erf. Any shape. */
  NnGelu: { inputs: 'x'; attrs: Record<string, never> };
  /** dy, x → dx, same shape. */
  NnGeluGrad: { inputs: 'dy' | 'x'; attrs: Record<string, never> };
  /** max(x, 0), and where x > 0. Any shape. → [y, positive (bool)]. */
  NnRelu: { inputs: 'x'; attrs: Record<string, never> };
  /** dy, positive (bool) → dx = dy where positive, else 0. */
  NnReluGrad: { inputs: 'dy' | 'positive'; attrs: Record<string, never> };
  /**
   * Multi-head attention. q [B, Tq, D], k and v [B, Tk, D], keyMask [B, Tk]? (1 keep, 0 hide); head h owns the columns
   * h·D/H … (h+1)·D/H. → [out [B, Tq, D], lse [B, H, Tq]] where lse is the log-sum-exp of the scaled, masked scores.
   * `causal`: query i sees keys j ≤ i + Tk − Tq. A query that sees no key yields 0 and lse = −Infinity is stored as −1e30.
   * `dropoutRate` > 0 drops probabilities after the softmax: element ((b·H + h)·Tq + i)·Tk + j of the stream `key0, key1`
   * (see rng.ts) is kept iff its uniform ≥ rate, and scaled by 1/(1 − rate).
   */
  NnAttention: {
    inputs: 'q' | 'k' | 'v' | 'keyMask?';
    attrs: {
      numHeads: number;
      scale: number;
      causal: boolean;
      dropoutRate: number;
      key0: number;
      key1: number;
    };
  };
  /** q, k, v, keyMask?, out, lse as above, dout [B, Tq, D] → [dq, dk, dv]. Same attributes. */
  NnAttentionGrad: {
    inputs: 'q' | 'k' | 'v' | 'keyMask?' | 'out' | 'lse' | 'dout';
    attrs: {
      numHeads: number;
      scale: number;
      causal: boolean;
      dropoutRate: number;
      key0: number;
      key1: number;
    };
  };
  /**
   * NnAttention without dropout and without a backward pass, whose keys and values lie in pages. Inputs 2i and 2i + 1: k and v
   * [Bᵢ, Tᵢ, D] of page i, in order of position, Tk = Σ Tᵢ; item b of q reads row rows[i][b] of page i, or row b where
   * rows[i] is null. → out [B, Tq, D].
   */
  NnPagedAttention: {
    inputs: 'q' | 'keyMask?' | `${number}`;
    attrs: { numHeads: number; scale: number; causal: boolean; rows: (Int32Array | null)[] };
  };
  /** Rows of a table. x [N, D], indices int32 [M] (each in 0 … N − 1) → [M, D]. Serves embeddings and row selection. */
  NnGatherRows: { inputs: 'x' | 'indices'; attrs: Record<string, never> };
  /** dy [M, D], indices int32 [M] → dx [rows, D], summing repeated rows. */
  NnScatterAddRows: { inputs: 'dy' | 'indices'; attrs: { rows: number } };
  /**
   * Mean cross-entropy over the rows whose label is ≥ 0. logits [M, V], labels int32 [M] (negative: ignored) →
   * [loss [], lse [M]]. With no labelled row the loss is NaN, as in PyTorch. Target = (1 − s)·onehot + s/V.
   */
  NnCrossEntropy: { inputs: 'logits' | 'labels'; attrs: { labelSmoothing: number } };
  /** logits, labels, lse as above, dloss [] → dlogits [M, V]. */
  NnCrossEntropyGrad: { inputs: 'logits' | 'labels' | 'lse' | 'dloss'; attrs: { labelSmoothing: number } };
  /**
   * NnCrossEntropy of the logits x·weightᵀ, which are never held as a whole. x [M, D], weight [V, D], labels int32 [M] →
   * [loss [], lse [M]].
   */
  NnLinearCrossEntropy: { inputs: 'x' | 'weight' | 'labels'; attrs: { labelSmoothing: number } };
  /** x, weight, labels, lse as above, dloss [] → dx [M, D]. */
  NnLinearCrossEntropyGradInput: {
    inputs: 'x' | 'weight' | 'labels' | 'lse' | 'dloss';
    attrs: { labelSmoothing: number };
  };
  /** x, weight, labels, lse as above, dloss [] → dweight [V, D]. */
  NnLinearCrossEntropyGradWeight: {
    inputs: 'x' | 'weight' | 'labels' | 'lse' | 'dloss';
    attrs: { labelSmoothing: number };
  };
  /** Keeps flat element e iff uniform(key)[e] ≥ rate (see rng.ts) and scales by 1/(1 − rate). Any shape; its own gradient. */
  NnDropout: { inputs: 'x'; attrs: { rate: number; key0: number; key1: number } };
  /** Σ x² over all elements of a list of tensors → []. Each tensor's sum is rounded to float32 and they are added in order. */
  NnSquaredSum: { inputs: `${number}`; attrs: Record<string, never> };
  /**
   * One AdamW update (Loshchilov & Hutter 2019, as torch.optim.AdamW) of a list of tensors: g = grad·scale;
   * p ← p·(1 − lr·weightDecay); m ← β1·m + (1 − β1)·g; v ← β2·v + (1 − β2)·g²; p ← p − lr/c1 · m / (√(v/c2) + eps),
   * c1 = 1 − β1^t, c2 = 1 − β2^t. The list: scale [], then param, grad, m, v of the first tensor (of one size), of the second, …
   * → new param, m, v of the first, of the second, …; `weightDecays` has one number for each.
   */
  NnAdamW: {
    inputs: `${number}`;
    attrs: {
      lr: number;
      beta1: number;
      beta2: number;
      eps: number;
      weightDecays: number[];
      c1: number;
      c2: number;
    };
  };
}

/** `gelu` is NnGelu, `relu` NnRelu. */
export type Activation = 'gelu' | 'relu';

interface LoraAttrs {
  scaling: number;
  rate: number;
  key0: number;
  key1: number;
}

export type KernelName = keyof KernelTable;
