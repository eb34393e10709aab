/** The layers of a decoder while it generates, in one kernel. B rows, T new positions, D width, F width between fc1 and fc2. */
import type { Tensor, Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import { tidy } from '@tensorflow/tfjs-core';
import type { CachePage } from '../cached-rows';
import { runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { Activation, KernelAttrs, KernelInputs, KernelOutputs } from '../kernels';
import type { KvPage } from './attention';
import { pagedAttention } from './attention';
import type { Linear } from './linear';
import { activatedLinear, linear, residualLinear } from './linear';
import type { LayerNorm } from './norm';
import { layerNorm } from './norm';

/** The parts of a layer in the order in which they run. */
export interface DecoderLayer {
  norms: readonly [attention: LayerNorm, mlp: LayerNorm];
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

/** Whether `decoderLayers` can compute these linears: their adapters have neither a magnitude (DoRA) nor a bias. */
export function isPlainLayer({ linears }: DecoderLayer): boolean {
  return linears.every(({ lora }) => !lora || !(lora.lora_magnitude_vector || lora.lora_B.bias));
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
  const { lists, attrs } = partsOf(layers);
  const inputs = { x, keyMask, keys, values, ...lists };
  const [y, ...made] = runKernel('NnDecoderLayers', inputs, { ...attrs, ...options, rows }) as Tensor3D[];
  return { x: y, layers: layers.map((_, i) => ({ k: made[2 * i], v: made[2 * i + 1] })) };
}

type Parts = ReturnType<typeof listParts>;

/** The layers run for every token, so their lists are made once. */
const listed = new WeakMap<readonly DecoderLayer[], Parts>();

function partsOf(layers: readonly DecoderLayer[]): Parts {
  const known = listed.get(layers);
  if (known) return known;
  const parts = listParts(layers);
  listed.set(layers, parts);
  return parts;
}

function listParts(layers: readonly DecoderLayer[]) {
  const linears = layers.flatMap((layer) => layer.linears);
  const adapted = linears.flatMap(({ lora }, i) => (lora ? [{ i, lora }] : []));
  const biased = linears.flatMap(({ bias }, i) => (bias ? [{ i, bias }] : []));
  return {
    lists: {
      norms: layers.flatMap(({ norms }) => norms.flatMap(({ weight, bias }): Tensor[] => [weight, bias])),
      weights: linears.map(({ weight }) => weight),
      biases: biased.map(({ bias }) => bias),
      lora_A: adapted.map(({ lora }) => lora.lora_A.weight),
      lora_B: adapted.map(({ lora }) => lora.lora_B.weight),
    },
    attrs: {
      biased: biased.map(({ i }) => i),
      adapted: adapted.map(({ i }) => i),
      scalings: adapted.map(({ lora }) => lora.scaling),
    },
  };
}

type Inputs = KernelInputs<'NnDecoderLayers', Tensor>;
type Attrs = KernelAttrs<'NnDecoderLayers'>;

function composed(inputs: Inputs, attrs: Attrs): KernelOutputs<'NnDecoderLayers', Tensor> {
  const { keys, values, norms } = inputs;
  const P = attrs.rows.length;
  const all = linearsOf(inputs, attrs);
  const made: Tensor[] = [];
  let { x } = inputs;
  for (let i = 0; i < norms.length / 4; i++) {
    const past = attrs.rows.map((rows, page): KvPage => {
      const [k, v] = [keys[i * P + page], values[i * P + page]] as Tensor3D[];
      return { k, v, ...(rows && { rows }) };
    });
    const layer = {
      norms: [0, 2].map((at) => ({ weight: norms[4 * i + at], bias: norms[4 * i + at + 1] })),
      linears: all.slice(6 * i, 6 * i + 6),
    } as unknown as DecoderLayer;
    const [y, k, v] = tidy(() =>
      inParts(layer, x as Tensor3D, past, { ...attrs, keyMask: inputs.keyMask as Tensor2D }),
    );
    if (i > 0) x.dispose();
    x = y;
    made.push(k, v);
  }
  return [x, ...made];
}

function linearsOf(
  { weights, biases, lora_A, lora_B }: Inputs,
  { biased, adapted, scalings }: Attrs,
): Linear[] {
  return weights.map((weight, i) => {
    const [at, b] = [adapted.indexOf(i), biased.indexOf(i)];
    const lora = at >= 0 && {
      lora: {
        lora_A: { weight: lora_A[at] },
        lora_B: { weight: lora_B[at] },
        ...{ scaling: scalings[at], dropout: 0 },
      },
    };
    return { weight, ...(b >= 0 && { bias: biases[b] }), ...lora } as Linear;
  });
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
  const [k, v] = [linear(k_proj, h), linear(v_proj, h)];
  const attended = pagedAttention(linear(q_proj, h), [...past, { k, v }], {
    numHeads,
    causal: true,
    keyMask,
  });
  let y = residualLinear(out_proj, attended, x);
  if (!normFirst) y = norm(0, y);
  const f = activatedLinear(activation, fc1, normFirst ? norm(1, y) : y);
  y = residualLinear(fc2, f, y);
  return [normFirst ? y : norm(1, y), k, v];
}

export default { references: { NnDecoderLayers: composed }, gradients: [] } satisfies KernelSet;
