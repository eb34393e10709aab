/** Reverse-mode gradients on tfjs's tape. The only file that touches the engine's inner state. */
import * as tf from '@tensorflow/tfjs-core';
import type { Scalar, Tensor } from '@tensorflow/tfjs-core';
import { trainableLeaves } from './tree';

function gradients(f: () => Tensor, xs: Tensor[], dy?: Tensor): { value: Tensor; grads: Tensor[] } {
  const { value, grads } = tf.engine().gradients(f, xs, dy as Tensor, true);
  return { value, grads: grads.map((grad, i) => grad ?? tf.zerosLike(xs[i])) };
}

/**
 * Value of the scalar function `f` and its gradients with respect to `xs`, in their order.
 * An x that `f` does not use gets zeros.
 */
export function valueAndGrads(f: () => Scalar, xs: Tensor[]): { value: Scalar; grads: Tensor[] } {
  if (xs.length === 0)
    throw new Error('valueAndGrads: there is nothing to differentiate by (no trainable tensor)');
  return gradients(f, xs) as { value: Scalar; grads: Tensor[] };
}

/**
 * `f(x)` without storing what happens inside: the backward pass runs `f` again (Chen et al. 2016). Gradients reach x and
 * the Variables of `params`, which must hold every Variable that `f` uses.
 */
export function checkpoint<T extends Tensor>(f: (x: T) => T, x: T, params: object): T {
  const variables = [...trainableLeaves(params).values()];
  const op = tf.customGrad((...args: unknown[]) => {
    const [input, save] = [args[0] as T, args[args.length - 1] as tf.GradSaveFunc];
    save([input]);
    const gradFunc = (dy: Tensor, [saved]: Tensor[]) =>
      onOwnTape(() => gradients(() => f(saved as T), [saved, ...variables], dy).grads);
    return { value: tf.tidy(() => f(input)), gradFunc };
  });
  return op(x, ...variables) as T;
}

/** A nested `gradients` call resets and then drops the engine's tape; the outer backward pass still needs its own. */
function onOwnTape<T>(f: () => T): T {
  const { state } = tf.engine();
  const outer = state.activeTape;
  try {
    return f();
  } finally {
    state.activeTape = outer;
  }
}
