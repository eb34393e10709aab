/** Optimizer arithmetic on the backend; no values are read back. */
import * as tf from '@tensorflow/tfjs-core';
import type { Scalar, Tensor, Variable } from '@tensorflow/tfjs-core';
import { runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { KernelAttrs, KernelInputs } from '../kernels';

export interface AdamWOptions {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  /** 1 for the first update. */
  step: number;
}

/** A trained tensor, its gradient and its two moments, all of one shape. */
export interface AdamWSlot {
  param: Variable;
  grad: Tensor;
  m: Variable;
  v: Variable;
  weightDecay: number;
}

/** Most elements of one kernel call (unless a single tensor is larger), since new and old values are in memory together. */
const ELEMENTS_PER_CALL = 1 << 20;

/**
 * One AdamW update in place (Loshchilov & Hutter 2019; the arithmetic of torch.optim.AdamW) of all slots.
 * The gradients are multiplied by `clipScale` first.
 */
export function adamW(slots: readonly AdamWSlot[], clipScale: Scalar, o: AdamWOptions): void {
  for (let begin = 0; begin < slots.length;) {
    let [end, elements] = [begin, 0];
    do elements += slots[end++].param.size;
    while (end < slots.length && elements + slots[end].param.size <= ELEMENTS_PER_CALL);
    updateSlots(slots.slice(begin, end), clipScale, o);
    begin = end;
  }
}

function updateSlots(slots: readonly AdamWSlot[], clipScale: Scalar, o: AdamWOptions): void {
  const { lr, beta1, beta2, eps, step } = o;
  const weightDecays = slots.map(({ weightDecay }) => weightDecay);
  const attrs = { lr, beta1, beta2, eps, weightDecays, c1: 1 - beta1 ** step, c2: 1 - beta2 ** step };
  tf.tidy(() => {
    const inputs = {
      scale: clipScale,
      params: slots.map(({ param }) => param),
      grads: slots.map(({ grad }) => grad),
      m: slots.map(({ m }) => m),
      v: slots.map(({ v }) => v),
    };
    const made = runKernel('NnAdamW', inputs, attrs);
    [inputs.params, inputs.m, inputs.v].flat().forEach((variable, i) => variable.assign(made[i]));
  });
}

/** √Σ‖g‖² over all tensors. */
export function globalNorm(grads: readonly Tensor[]): Scalar {
  return tf.tidy(() => tf.sqrt(runKernel('NnSquaredSum', { xs: [...grads] }, {}) as Scalar));
}

/** min(1, maxNorm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ scales. */
export function clipScale(norm: Scalar, maxNorm: number): Scalar {
  return tf.tidy(() => tf.minimum(1, tf.div(maxNorm, tf.add(norm, 1e-6))) as Scalar);
}

/** from + share·(to − from), computed from the nearer end as torch.lerp. */
function lerp(from: Tensor, to: Tensor, share: number): Tensor {
  const way = tf.sub(to, from);
  return share < 0.5 ? tf.add(from, tf.mul(way, share)) : tf.sub(to, tf.mul(way, 1 - share));
}

/** Numbers that depend on the settings alone are computed in double, and the operations are in the order of torch.optim.AdamW. */
function composed(
  { scale, params, grads, m, v }: KernelInputs<'NnAdamW', Tensor>,
  a: KernelAttrs<'NnAdamW'>,
): Tensor[] {
  const scaled = grads.map((grad) => tf.mul(grad, scale));
  const m1 = m.map((old, i) => lerp(old, scaled[i], 1 - a.beta1));
  const v1 = v.map((old, i) => {
    const g = scaled[i];
    return tf.add(tf.mul(old, a.beta2), tf.mul(tf.mul(g, 1 - a.beta2), g));
  });
  const updated = params.map((param, i) => {
    const denominator = tf.add(tf.div(tf.sqrt(v1[i]), Math.sqrt(a.c2)), a.eps);
    const decayed = tf.mul(param, 1 - a.lr * a.weightDecays[i]);
    return tf.sub(decayed, tf.div(tf.mul(m1[i], a.lr / a.c1), denominator));
  });
  return [...updated, ...m1, ...v1];
}

export default {
  references: {
    NnSquaredSum: ({ xs }) => tf.sum(tf.stack(xs.map((x) => tf.sum(tf.square(x))))),
    NnAdamW: composed,
  },
  gradients: [],
} satisfies KernelSet;
