/** The layers of an encoder without a backward pass, in one kernel. B rows, T positions, D width, F width between fc1 and fc2. */
import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import { tidy } from '@tensorflow/tfjs-core';
import { runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { Activation, KernelAttrs, KernelInputs } from '../kernels';
import { attention } from './attention';
import { layerLists, layersOf } from './layer-lists';
import type { PlainLayer } from './layer-lists';
import type { Linear } from './linear';
import { activatedLinear, linear, residualLinear } from './linear';
import { layerNorm } from './norm';
import { split } from './structural';

export interface EncoderLayer extends PlainLayer {
  linears: readonly [qkv: Linear, projection: Linear, fc1: Linear, fc2: Linear];
}

export interface EncoderLayerOptions {
  numHeads: number;
  eps: number;
  activation: Activation;
}

/**
 * Pre-norm layers one after another, whose positions all see each other, as in evaluation: x [B, T, D] → the output of the last one
 * [B, T, D]. The same as their parts one by one. No gradient.
 */
export function encoderLayers(
  layers: readonly EncoderLayer[],
  x: Tensor3D,
  o: EncoderLayerOptions,
): Tensor3D {
  const { attrs, ...lists } = layerLists(layers);
  return runKernel('NnEncoderLayers', { x, ...lists }, { ...attrs, ...o }) as Tensor3D;
}

function composed(
  inputs: KernelInputs<'NnEncoderLayers', Tensor>,
  attrs: KernelAttrs<'NnEncoderLayers'>,
): Tensor {
  let { x } = inputs;
  layersOf<EncoderLayer>(inputs, attrs).forEach((layer, i) => {
    const y = tidy(() => inParts(layer, x as Tensor3D, attrs));
    if (i > 0) x.dispose();
    x = y;
  });
  return x;
}

function inParts(
  { norms: [first, second], linears: [qkv, projection, fc1, fc2] }: EncoderLayer,
  x: Tensor3D,
  { numHeads, eps, activation }: EncoderLayerOptions,
): Tensor3D {
  const [q, k, v] = split(linear(qkv, layerNorm(first, x, eps)), 3, 2);
  const y = residualLinear(projection, attention(q, k, v, { numHeads }), x);
  const f = activatedLinear(activation, fc1, layerNorm(second, y, eps));
  return residualLinear(fc2, f, y);
}

export default { references: { NnEncoderLayers: composed }, gradients: [] } satisfies KernelSet;
