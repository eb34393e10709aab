/** AdamW over named trainables, with the parameter groups of transformers' Trainer. */
import type { Scalar, Tensor, Variable } from '@blip2/nn';
import { adamW, clipScale, dispose, tensor, tidy, variable, zeros } from '@blip2/nn';

export interface AdamWOptions {
  adam_beta1: number;
  adam_beta2: number;
  adam_epsilon: number;
  weight_decay: number;
  /** gradients are scaled down to this global norm; 0 turns clipping off */
  max_grad_norm: number;
}

/** One trained tensor with its two moments. */
interface Slot {
  name: string;
  param: Variable;
  m: Variable;
  v: Variable;
  weightDecay: number;
  /** factor on the learning rate */
  lrScale: number;
}

export interface AdamW {
  options: AdamWOptions;
  /** updates made so far */
  step: number;
  slots: Slot[];
}

/**
 * Does weight decay act on this tensor? Trainer leaves out biases and norm layers, which in BLIP-2 are exactly
 * its one-dimensional tensors.
 */
export function decays(param: { shape: number[] }): boolean {
  return param.shape.length > 1;
}

/**
 * Moments start at zero. Slots are in the order of `trainables`. `decay` selects the tensors with weight decay;
 * by default it is Trainer's choice, `decays`. `lrScale` is a factor on the learning rate of each.
 */
export function createAdamW(
  trainables: Map<string, Variable>,
  options: AdamWOptions,
  decay: (param: Variable, name: string) => boolean = decays,
  lrScale: (name: string) => number = () => 1,
): AdamW {
  const slots = [...trainables].map(([name, param]) => ({
    name,
    param,
    m: tidy(() => variable(zeros(param.shape))),
    v: tidy(() => variable(zeros(param.shape))),
    weightDecay: decay(param, name) ? options.weight_decay : 0,
    lrScale: lrScale(name),
  }));
  return { options, step: 0, slots };
}

/** One update in place. `grads` are in the order of the slots; `norm` is their global norm. Nothing is read back. */
export function updateAdamW(optimizer: AdamW, grads: Tensor[], norm: Scalar, lr: number): void {
  const { adam_beta1, adam_beta2, adam_epsilon, max_grad_norm } = optimizer.options;
  const step = ++optimizer.step;
  tidy(() => {
    const scale = max_grad_norm > 0 ? clipScale(norm, max_grad_norm) : (tensor([1], []) as Scalar);
    const slots = optimizer.slots.map((slot, i) => ({ ...slot, grad: grads[i] }));
    const o = { beta1: adam_beta1, beta2: adam_beta2, eps: adam_epsilon, step };
    for (const factor of new Set(slots.map(({ lrScale }) => lrScale)))
      adamW(
        slots.filter(({ lrScale }) => lrScale === factor),
        scale,
        { ...o, lr: lr * factor },
      );
  });
}

/** The moments by name, `m.NAME` and `v.NAME`, as a checkpoint stores them. */
export function moments(optimizer: AdamW): Map<string, Variable> {
  return new Map(
    optimizer.slots.flatMap(({ name, m, v }) => [
      [`m.${name}`, m],
      [`v.${name}`, v],
    ]),
  );
}

/** Frees the moments; the trained tensors stay. */
export function disposeAdamW(optimizer: AdamW): void {
  for (const { m, v } of optimizer.slots) {
    dispose(m);
    dispose(v);
  }
}
