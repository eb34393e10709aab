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
 * `f(...xs)` without storing what happens inside: the backward pass runs `f` again (Chen et al. 2016). Gradients reach the xs
 * and the Variables of `params`, which must hold every Variable that `f` uses. Other tensors that `f` closes over must still
 * be alive in the backward pass: make small ones (masks) inside, pass activations as xs.
 */
export function checkpoint<X extends Tensor[], Y extends Tensor>(
  f: (...xs: X) => Y,
  xs: [...X],
  params: object,
): Y {
  const inputs: Tensor[] = [...xs, ...trainableLeaves(params).values()];
  const op = tf.customGrad((...args: unknown[]) => {
    const save = args[args.length - 1] as tf.GradSaveFunc;
    const given = args.slice(0, xs.length) as X;
    save(given);
    const gradFunc = (dy: Tensor, saved: Tensor[]) => {
      const wanted = [...saved, ...inputs.slice(xs.length)];
      return onOwnTape(() => gradients(() => f(...(saved as X)), wanted, dy).grads);
    };
    return { value: tf.tidy(() => f(...given)), gradFunc };
  });
  return op(...inputs) as Y;
}

/**
 * What `f` computes, as a constant: the backward pass neither sees nor stores anything of it. For parts of a model in
 * which nothing trains and whose input comes from nothing that trains; what they make on the way can then be freed.
 */
export function constant<T extends tf.TensorContainer>(f: () => T): T {
  const { state } = tf.engine();
  state.kernelDepth++; // the engine records kernels that are called by tape level 0 only
  try {
    return tf.tidy(f);
  } finally {
    state.kernelDepth--;
  }
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
