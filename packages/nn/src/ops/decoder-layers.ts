/** The layers of a decoder while it generates, in one kernel. B rows, T new positions, D width, F width between fc1 and fc2. */
import type { Tensor, Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import { tidy } from '@tensorflow/tfjs-core';
import type { CachePage } from '../cached-rows';
import { runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { Activation, KernelAttrs, KernelInputs, KernelOutputs } from '../kernels';
import type { KvPage } from './attention';
import { attention, pagedAttention } from './attention';
import { layerLists, layersOf } from './layer-lists';
import type { PlainLayer } from './layer-lists';
import type { Linear } from './linear';
import { activatedLinear, linear, residualLinear } from './linear';
import { layerNorm } from './norm';

export interface DecoderLayer extends PlainLayer {
  linears: readonly [q: Linear, k: Linear, v: Linear, out: Linear, fc1: Linear, fc2: Linear];
}

export interface DecoderLayerOptions {
  numHeads: number;
  eps: number;
  /** Norms before attention and before fc1, else after out and after fc2. */
  normFirst: boolean;
  activation: Activation;
  /** [B, past + T], 1 keep, 0 hide. */
  keyMask?: Tensor2D;
}

/**
 * Layers one after another, at new positions after those of `pages`, as in evaluation: x [B, T, D] → the output of the last layer
 * [B, T, D] and, for each layer, the new keys and values [B, T, D]. The same as their parts one by one. No gradient.
 */
export function decoderLayers(
  layers: readonly DecoderLayer[],
  x: Tensor3D,
  pages: readonly CachePage[],
  o: DecoderLayerOptions,
): { x: Tensor3D; layers: { k: Tensor3D; v: Tensor3D }[] } {
  const { keyMask, ...options } = o;
  const keys = layers.flatMap((_, i) => pages.map((page) => page.layers[i].k));
  const values = layers.flatMap((_, i) => pages.map((page) => page.layers[i].v));
  const rows = pages.map(({ rows }) => rows ?? null);
  const { attrs, ...lists } = layerLists(layers);
  const inputs = { x, keyMask, keys, values, ...lists };
  const [y, ...made] = runKernel('NnDecoderLayers', inputs, { ...attrs, ...options, rows }) as Tensor3D[];
  return { x: y, layers: layers.map((_, i) => ({ k: made[2 * i], v: made[2 * i + 1] })) };
}

type Inputs = KernelInputs<'NnDecoderLayers', Tensor>;
type Attrs = KernelAttrs<'NnDecoderLayers'>;

function composed(inputs: Inputs, attrs: Attrs): KernelOutputs<'NnDecoderLayers', Tensor> {
  const { keys, values } = inputs;
  const P = attrs.rows.length;
  const made: Tensor[] = [];
  let { x } = inputs;
  layersOf<DecoderLayer>(inputs, attrs).forEach((layer, i) => {
    const past = attrs.rows.map((rows, page): KvPage => {
      const [k, v] = [keys[i * P + page], values[i * P + page]] as Tensor3D[];
      return { k, v, ...(rows && { rows }) };
    });
    const options = { ...attrs, keyMask: inputs.keyMask as Tensor2D };
    const [y, k, v] = tidy(() => inParts(layer, x as Tensor3D, past, options));
    if (i > 0) x.dispose();
    x = y;
    made.push(k, v);
  });
  return [x, ...made];
}

function inParts(
  { norms, linears }: DecoderLayer,
  x: Tensor3D,
  past: readonly KvPage[],
  { numHeads, eps, normFirst, activation, keyMask }: DecoderLayerOptions,
): Tensor3D[] {
  const [q_proj, k_proj, v_proj, out_proj, fc1, fc2] = linears;
  const norm = (i: number, y: Tensor3D) => layerNorm(norms[i], y, eps);
  const h = normFirst ? norm(0, x) : x;
  const [q, k, v] = [linear(q_proj, h), linear(k_proj, h), linear(v_proj, h)];
  const common = { numHeads, causal: true, keyMask };
  const attended =
    past.length > 0 ? pagedAttention(q, [...past, { k, v }], common) : attention(q, k, v, common);
  let y = residualLinear(out_proj, attended, x);
  if (!normFirst) y = norm(0, y);
  const f = activatedLinear(activation, fc1, normFirst ? norm(1, y) : y);
  y = residualLinear(fc2, f, y);
  return [normFirst ? y : norm(1, y), k, v];
}

export default { references: { NnDecoderLayers: composed }, gradients: [] } satisfies KernelSet;
