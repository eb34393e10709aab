/** Every kernel of `kernels.ts` as a composition of tfjs ops, and the gradients of those that have one. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor } from '@tensorflow/tfjs-core';
import type { KernelName } from './kernels';
import { registerKernel } from './kernel-door';
import type { Gradient, References } from './kernel-door';
import activations from './ops/activations';
import attention from './ops/attention';
import decoderLayers from './ops/decoder-layers';
import dropout from './ops/dropout';
import encoderLayers from './ops/encoder-layers';
import linear from './ops/linear';
import loss from './ops/loss';
import norm from './ops/norm';
import optimizer from './ops/optimizer';
import packedAttention from './ops/packed-attention';
import rows from './ops/rows';

const sets = [
  activations,
  attention,
  decoderLayers,
  dropout,
  encoderLayers,
  linear,
  loss,
  norm,
  optimizer,
  packedAttention,
  rows,
];

/** Simple, slow compositions that run on any backend; the kernels of backends are compared with them. */
export const references: References = {
  ...activations.references,
  ...attention.references,
  ...decoderLayers.references,
  ...dropout.references,
  ...encoderLayers.references,
  ...linear.references,
  ...loss.references,
  ...norm.references,
  ...optimizer.references,
  ...packedAttention.references,
  ...rows.references,
};

export const gradients: readonly Gradient[] = sets.flatMap((set) => set.gradients);

/** Registers the composition of every kernel that the backend does not have. */
export function registerReferenceKernels(backendName: string): void {
  for (const [name, compose] of Object.entries(references) as [KernelName, Compose][])
    if (!tf.getKernel(name, backendName))
      registerKernel(backendName, name, (inputs, attrs) => tf.tidy(() => compose(inputs, attrs)));
}

/** Kernels of many layers. */
export const LAYER_KERNELS: readonly KernelName[] = ['NnDecoderLayers', 'NnEncoderLayers'];

/** Lets the kernels of many layers call those of the parts, to measure or replace them, until the returned function is called. */
export function takeApart(backendName: string): () => void {
  const whole = LAYER_KERNELS.map((name) => tf.getKernel(name, backendName));
  for (const { kernelName } of whole) tf.unregisterKernel(kernelName, backendName);
  registerReferenceKernels(backendName);
  return () => {
    for (const config of whole) {
      tf.unregisterKernel(config.kernelName, backendName);
      tf.registerKernel(config);
    }
  };
}

type Compose = (inputs: never, attrs: never) => Tensor | Tensor[];
