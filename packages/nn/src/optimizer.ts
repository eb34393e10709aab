/** Optimizer arithmetic on the device: nothing here reads a value back. */
import * as tf from '@tensorflow/tfjs-core';
import type { Scalar, Tensor, Variable } from '@tensorflow/tfjs-core';

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
  /** Factor on the learning rate, 1 by default (layer-wise decay). */
  lrScale?: number;
}

/** Elements that one kernel call updates, more only for a single larger tensor: its results stand beside the old values. */
const ELEMENTS_PER_CALL = 1 << 22;

/**
 * One AdamW update in place (Loshchilov & Hutter 2019; the arithmetic of torch.optim.AdamW) of all slots.
 * The gradients are multiplied by `clipScale` first.
 */
export function adamW(slots: readonly AdamWSlot[], clipScale: Scalar, o: AdamWOptions): void {
  for (let begin = 0; begin < slots.length; ) {
    let [end, elements] = [begin, 0];
    do elements += slots[end++].param.size;
    while (
      end < slots.length &&
      slots[end].lrScale === slots[begin].lrScale &&
      elements + slots[end].param.size <= ELEMENTS_PER_CALL
    );
    updateSlots(slots.slice(begin, end), clipScale, o);
    begin = end;
  }
}

function updateSlots(slots: readonly AdamWSlot[], clipScale: Scalar, o: AdamWOptions): void {
  const { beta1, beta2, eps, step } = o;
  const lr = o.lr * (slots[0].lrScale ?? 1);
  const weightDecays = slots.map(({ weightDecay }) => weightDecay);
  const attrs = { lr, beta1, beta2, eps, weightDecays, c1: 1 - beta1 ** step, c2: 1 - beta2 ** step };
  tf.tidy(() => {
    const list = [clipScale, ...slots.flatMap(({ param, grad, m, v }) => [param, grad, m, v])];
    const made = tf.engine().runKernel('NnAdamW', asInputs(list), attrs) as Tensor[];
    slots.forEach(({ param, m, v }, i) => {
      [param, m, v].forEach((variable, j) => variable.assign(made[3 * i + j]));
    });
  });
}

/** √Σ‖g‖² over all tensors. */
export function globalNorm(grads: readonly Tensor[]): Scalar {
  return tf.tidy(() => tf.sqrt(tf.engine().runKernel('NnSquaredSum', asInputs(grads)) as Scalar));
}

/** A list of tensors as a kernel's inputs, under the names 0, 1, 2 … */
function asInputs(list: readonly Tensor[]): tf.NamedTensorMap {
  return Object.fromEntries(list.entries()) as tf.NamedTensorMap;
}

/** min(1, maxNorm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ scales. */
export function clipScale(norm: Scalar, maxNorm: number): Scalar {
  return tf.tidy(() => tf.minimum(1, tf.div(maxNorm, tf.add(norm, 1e-6))) as Scalar);
}
