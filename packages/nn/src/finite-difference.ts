/** Numeric check of gradients by central differences along random directions, for test suites. */
import type { Scalar, Tensor } from '@tensorflow/tfjs-core';
import { valueAndGrads } from './autodiff';
import { add, dispose, mul, scale, sum, tensor, tidy } from './ops';
import { fold, normal, rngKey } from './rng';

const key = rngKey(20);

/** Σ f(xs)·w with fixed random weights w, so every output element matters. */
function weighted(f: (...xs: Tensor[]) => Tensor, xs: Tensor[]): Scalar {
  const y = f(...xs);
  return sum(mul(y, tensor(normal(fold(key, 'weights'), y.size), y.shape)));
}

/** The weighted sum of the outputs of `f` and its gradients with respect to `xs`. */
export function weightedGradients(f: (...xs: Tensor[]) => Tensor, xs: Tensor[]) {
  return valueAndGrads(() => weighted(f, xs), xs);
}

/**
 * Largest relative difference, over the inputs, between ⟨∇ᵢ loss, d⟩ and (loss(xᵢ + εd) − loss(xᵢ − εd)) / 2ε for random
 * directions d. The loss is a weighted sum of the outputs.
 */
export async function gradientError(
  f: (...xs: Tensor[]) => Tensor,
  xs: Tensor[],
  epsilon = 1e-2,
): Promise<number> {
  const at = async (inputs: Tensor[]) => (await tidy(() => weighted(f, inputs)).data())[0];
  const { value, grads } = weightedGradients(f, xs);
  let worst = 0;
  for (const [i, x] of xs.entries()) {
    const direction = tensor(normal(fold(key, i), x.size), x.shape);
    const moved = (sign: number) =>
      xs.map((other, j) => (i === j ? tidy(() => add(x, scale(direction, sign * epsilon))) : other));
    const [up, down] = [moved(1), moved(-1)];
    const numeric = ((await at(up)) - (await at(down))) / (2 * epsilon);
    const analytic = (await tidy(() => sum(mul(grads[i], direction))).data())[0];
    const scaleOf = Math.max(1, Math.abs(numeric), Math.abs(analytic));
    worst = Math.max(worst, Math.abs(numeric - analytic) / scaleOf);
    dispose([direction, up[i], down[i]]);
  }
  dispose([value, grads]);
  return worst;
}
