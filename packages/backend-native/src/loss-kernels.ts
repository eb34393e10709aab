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

/** The first arguments of the fused loss. */
function lossArguments(
  { x, weight, labels }: KernelInputs<'NnLinearCrossEntropy', TensorInfo>,
  labelSmoothing: number,
  backend: NativeBackend,
) {
  return [backend.floats(x), backend.storedOrFloats(weight), backend.ints(labels), labelSmoothing] as const;
}

/** The first arguments of both gradients of the fused loss. */
function gradientArguments(
  inputs: KernelInputs<'NnLinearCrossEntropyGradInput', TensorInfo>,
  labelSmoothing: number,
  backend: NativeBackend,
) {
  const { lse, dloss } = inputs;
  return [
    ...lossArguments(inputs, labelSmoothing, backend),
    backend.floats(lse),
    backend.floats(dloss),
  ] as const;
}

/** Cross-entropy of logits, and of x · weightᵀ without ever holding all its logits. */
export const lossKernels: { [N in LossKernelName]: NnKernel<N> } = {
  NnCrossEntropy({ logits, labels }, { labelSmoothing }, backend) {
    const [M, V] = matrix('NnCrossEntropy', 'logits', logits);
    const loss = backend.allocate([]);
    const lse = backend.allocate([M]);
    const first = [backend.floats(logits), backend.ints(labels), labelSmoothing] as const;
    backend.addon.crossEntropy(...first, loss.values, lse.values, M, V);
    return [loss.info, lse.info];
  },

  NnCrossEntropyGrad({ logits, labels, lse, dloss }, { labelSmoothing }, backend) {
    const [M, V] = matrix('NnCrossEntropyGrad', 'logits', logits);
    const saved = [backend.floats(lse), backend.floats(dloss), labelSmoothing] as const;
    const [values, ids] = [backend.floats(logits), backend.ints(labels)];
    return backend.made([M, V], (dlogits) =>
      backend.addon.crossEntropyGrad(values, ids, ...saved, dlogits, M, V),
    );
  },

  NnLinearCrossEntropy(inputs, { labelSmoothing }, backend) {
    const sizes = lossSizes('NnLinearCrossEntropy', inputs.x, inputs.weight);
    const loss = backend.allocate([]);
    const lse = backend.allocate([sizes[0]]);
    const first = lossArguments(inputs, labelSmoothing, backend);
    backend.addon.linearCrossEntropy(...first, loss.values, lse.values, ...sizes, backend.precision);
    return [loss.info, lse.info];
  },

  NnLinearCrossEntropyGradInput(inputs, { labelSmoothing }, backend) {
    const sizes = lossSizes('NnLinearCrossEntropyGradInput', inputs.x, inputs.weight);
    const first = gradientArguments(inputs, labelSmoothing, backend);
    return backend.made(inputs.x.shape, (dx) =>
      backend.addon.linearCrossEntropyGradInput(...first, dx, ...sizes, backend.precision),
    );
  },

  NnLinearCrossEntropyGradWeight(inputs, { labelSmoothing }, backend) {
    const sizes = lossSizes('NnLinearCrossEntropyGradWeight', inputs.x, inputs.weight);
    const first = gradientArguments(inputs, labelSmoothing, backend);
    return backend.made(inputs.weight.shape, (dweight) =>
      backend.addon.linearCrossEntropyGradWeight(...first, dweight, ...sizes, backend.precision),
    );
  },
};
