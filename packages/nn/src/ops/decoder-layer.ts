/** A layer of a decoder while it generates, in one kernel. B rows, T new positions, D width, F width between fc1 and fc2. */
import type { Tensor, Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
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

/** Whether `decoderLayer` can compute these linears: their adapters have neither a magnitude (DoRA) nor a bias. */
export function isPlainLayer({ linears }: DecoderLayer): boolean {
  return linears.every(({ lora }) => !lora || !(lora.lora_magnitude_vector || lora.lora_B.bias));
}

/**
 * A layer at new positions after those of `pages`, as in evaluation: x [B, T, D] → its output [B, T, D] and the new keys and values
 * [B, T, D]. The same as its parts one by one. No gradient.
 */
export function decoderLayer(
  layer: DecoderLayer,
  x: Tensor3D,
  pages: readonly KvPage[],
  o: DecoderLayerOptions,
): { x: Tensor3D; k: Tensor3D; v: Tensor3D } {
  const { keyMask, ...options } = o;
  const keys = pages.map(({ k }) => k);
  const values = pages.map(({ v }) => v);
  const rows = pages.map(({ rows }) => rows ?? null);
  const { lists, attrs } = partsOf(layer);
  const inputs = { x, keyMask, keys, values, ...lists };
  const [y, k, v] = runKernel('NnDecoderLayer', inputs, { ...attrs, ...options, rows });
  return { x: y as Tensor3D, k: k as Tensor3D, v: v as Tensor3D };
}

type Parts = ReturnType<typeof listParts>;

/** A layer runs for every token, so its lists are made once. */
const listed = new WeakMap<DecoderLayer, Parts>();

function partsOf(layer: DecoderLayer): Parts {
  const known = listed.get(layer);
  if (known) return known;
  const parts = listParts(layer);
  listed.set(layer, parts);
  return parts;
}

function listParts({ norms, linears }: DecoderLayer) {
  const adapted = linears.flatMap(({ lora }, i) => (lora ? [{ i, lora }] : []));
  const biased = linears.flatMap(({ bias }, i) => (bias ? [{ i, bias }] : []));
  return {
    lists: {
      norms: norms.flatMap(({ weight, bias }): Tensor[] => [weight, bias]),
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

function composed(
  {
    x,
    keyMask,
    norms,
    weights,
    biases,
    lora_A,
    lora_B,
    keys,
    values,
  }: KernelInputs<'NnDecoderLayer', Tensor>,
  { numHeads, eps, normFirst, activation, biased, adapted, scalings, rows }: KernelAttrs<'NnDecoderLayer'>,
): KernelOutputs<'NnDecoderLayer', Tensor> {
  const linears = weights.map((weight, i) => {
    const [at, b] = [adapted.indexOf(i), biased.indexOf(i)];
    const lora = at >= 0 && {
      ...{
        lora_A: { weight: lora_A[at] },
        lora_B: { weight: lora_B[at] },
        scaling: scalings[at],
        dropout: 0,
      },
    };
    return { weight, ...(b >= 0 && { bias: biases[b] }), ...(lora && { lora }) } as Linear;
  });
  const [q_proj, k_proj, v_proj, out_proj, fc1, fc2] = linears as unknown as DecoderLayer['linears'];
  const norm = (i: number, y: Tensor) =>
    layerNorm({ weight: norms[2 * i], bias: norms[2 * i + 1] } as LayerNorm, y, eps);
  const h = normFirst ? norm(0, x) : x;
  const [k, v] = [linear(k_proj, h), linear(v_proj, h)] as Tensor3D[];
  const past = keys.map((key, i) => ({ k: key, v: values[i], rows: rows[i] ?? undefined }) as KvPage);
  const o = { numHeads, causal: true, keyMask: keyMask as Tensor2D | undefined };
  const attended = pagedAttention(linear(q_proj, h) as Tensor3D, [...past, { k, v }], o);
  let y: Tensor = residualLinear(out_proj, attended as Tensor, x);
  if (!normFirst) y = norm(0, y);
  const f = activatedLinear(activation, fc1, normFirst ? norm(1, y) : y);
  y = residualLinear(fc2, f, y);
  return [normFirst ? y : norm(1, y), k, v];
}

export default { references: { NnDecoderLayer: composed }, gradients: [] } satisfies KernelSet;
