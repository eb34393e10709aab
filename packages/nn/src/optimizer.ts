/** Optimizer arithmetic on the device: nothing here reads a value back. */
import * as tf from '@tensorflow/tfjs-core';
import type { Scalar, Tensor, Variable } from '@tensorflow/tfjs-core';

export interface AdamWOptions {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** 1 for the first update. */
  step: number;
}

/**
 * One AdamW update in place (Loshchilov & Hutter 2019; the arithmetic of torch.optim.AdamW).
 * p, grad, m, v of one shape; the gradient is multiplied by `clipScale` first.
 */
export function adamW(
  p: Variable,
  grad: Tensor,
  m: Variable,
  v: Variable,
  clipScale: Scalar,
  o: AdamWOptions,
): void {
  const { lr, beta1, beta2, eps, weightDecay, step } = o;
  const attrs = { lr, beta1, beta2, eps, weightDecay, c1: 1 - beta1 ** step, c2: 1 - beta2 ** step };
  tf.tidy(() => {
    const inputs = { param: p, grad, m, v, scale: clipScale };
    const [p1, m1, v1] = tf
      .engine()
      .runKernel('NnAdamW', inputs as unknown as tf.NamedTensorMap, attrs) as Tensor[];
    p.assign(p1);
    m.assign(m1);
    v.assign(v1);
  });
}

/** √Σ‖g‖² over all tensors. */
export function globalNorm(grads: readonly Tensor[]): Scalar {
  return tf.tidy(() => {
    const squares = grads.map((x) => tf.engine().runKernel('NnSquaredSum', { x }) as Scalar);
    return tf.sqrt(tf.addN(squares)) as Scalar;
  });
}

/** min(1, maxNorm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ scales. */
export function clipScale(norm: Scalar, maxNorm: number): Scalar {
  return tf.tidy(() => tf.minimum(1, tf.div(maxNorm, tf.add(norm, 1e-6))) as Scalar);
}
