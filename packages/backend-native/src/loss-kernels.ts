import type { KernelInputs, KernelName } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeBackend } from './backend';
import type { NnKernel } from './kernel';
import { expectShape, matrix } from './shape-checks';

type LossKernelName = Extract<KernelName, `${string}CrossEntropy${string}`>;

/** M, D, V of x [M, D] and weight [V, D]. */
function lossSizes(kernel: KernelName, x: TensorInfo, weight: TensorInfo): [number, number, number] {
  const [M, D] = matrix(kernel, 'x', x);
  const [V] = matrix(kernel, 'weight', weight);
  expectShape(kernel, 'weight', weight, [V, D]);
  return [M, D, V];
}

/** The arguments that both gradients of the fused loss begin with. */
function lossArguments(
  { x, weight, labels, lse, dloss }: KernelInputs<'NnLinearCrossEntropyGradInput', TensorInfo>,
  labelSmoothing: number,
  backend: NativeBackend,
) {
  const arrays = [backend.floats(x), backend.storedOrFloats(weight), backend.ints(labels)] as const;
  return [...arrays, labelSmoothing, backend.floats(lse), backend.floats(dloss)] as const;
}

/** Cross-entropy of logits, and of a product whose logits are never held. */
export const lossKernels: { [N in LossKernelName]: NnKernel<N> } = {
  NnCrossEntropy({ logits, labels }, { labelSmoothing }, backend) {
    const [M, V] = matrix('NnCrossEntropy', 'logits', logits);
    const loss = backend.allocate([]);
    const lse = backend.allocate([M]);
    const given = [backend.floats(logits), backend.ints(labels), labelSmoothing] as const;
    backend.addon.crossEntropy(...given, loss.values, lse.values, M, V);
    return [loss.info, lse.info];
  },

  NnCrossEntropyGrad({ logits, labels, lse, dloss }, { labelSmoothing }, backend) {
    const [M, V] = matrix('NnCrossEntropyGrad', 'logits', logits);
    const dlogits = backend.allocate([M, V]);
    const given = [
      backend.floats(logits),
      backend.ints(labels),
      backend.floats(lse),
      backend.floats(dloss),
    ] as const;
    backend.addon.crossEntropyGrad(...given, labelSmoothing, dlogits.values, M, V);
    return dlogits.info;
  },

  NnLinearCrossEntropy({ x, weight, labels }, { labelSmoothing }, backend) {
    const [M, D, V] = lossSizes('NnLinearCrossEntropy', x, weight);
    const loss = backend.allocate([]);
    const lse = backend.allocate([M]);
    const given = [
      backend.floats(x),
      backend.storedOrFloats(weight),
      backend.ints(labels),
      labelSmoothing,
    ] as const;
    backend.addon.linearCrossEntropy(...given, loss.values, lse.values, M, D, V, backend.precision);
    return [loss.info, lse.info];
  },

  NnLinearCrossEntropyGradInput(inputs, { labelSmoothing }, backend) {
    const sizes = lossSizes('NnLinearCrossEntropyGradInput', inputs.x, inputs.weight);
    const dx = backend.allocate(inputs.x.shape);
    const given = lossArguments(inputs, labelSmoothing, backend);
    backend.addon.linearCrossEntropyGradInput(...given, dx.values, ...sizes, backend.precision);
    return dx.info;
  },

  NnLinearCrossEntropyGradWeight(inputs, { labelSmoothing }, backend) {
    const sizes = lossSizes('NnLinearCrossEntropyGradWeight', inputs.x, inputs.weight);
    const dweight = backend.allocate(inputs.weight.shape);
    const given = lossArguments(inputs, labelSmoothing, backend);
    backend.addon.linearCrossEntropyGradWeight(...given, dweight.values, ...sizes, backend.precision);
    return dweight.info;
  },
};
