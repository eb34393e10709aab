/** Layers as lists of their tensors, for the kernels that compute many of them in one call. */
import type { Tensor } from '@tensorflow/tfjs-core';
import type { LayerLists, LayerListsAttrs } from '../kernels';
import type { Linear } from './linear';
import type { LayerNorm } from './norm';

/** The parts of a layer in the order in which they run. */
export interface PlainLayer {
  norms: readonly [attention: LayerNorm, mlp: LayerNorm];
  linears: readonly Linear[];
}

/** Whether the kernels can compute these linears: their adapters have neither a magnitude (DoRA) nor a bias. */
export function isPlainLayer({ linears }: PlainLayer): boolean {
  return linears.every(({ lora }) => !lora || !(lora.lora_magnitude_vector || lora.lora_B.bias));
}

/** By the layers of a model; null where an adapter is not plain. */
const plain = new WeakMap<readonly object[], PlainLayer[] | null>();

/**
 * The layers of a model in plain form, made once for an array of layers, which must not be changed afterwards (trained tensors are variables,
 * which stay the same objects); null if one of them has none.
 */
export function plainLayers<L extends object, P extends PlainLayer>(
  layers: readonly L[],
  plainLayer: (layer: L) => P,
): P[] | null {
  const known = plain.get(layers);
  if (known !== undefined) return known as P[] | null;
  const listed = layers.map(plainLayer);
  const found = listed.every(isPlainLayer) ? listed : null;
  plain.set(layers, found);
  return found;
}

type Lists = LayerLists<Tensor> & { attrs: LayerListsAttrs };

/** The layers of a decoder run for every token, so the lists of all of them are made once. */
const listed = new WeakMap<readonly PlainLayer[], Lists>();

export function layerLists(layers: readonly PlainLayer[]): Lists {
  let lists = listed.get(layers);
  if (!lists) listed.set(layers, (lists = listParts(layers)));
  return lists;
}

function listParts(layers: readonly PlainLayer[]): Lists {
  const linears = layers.flatMap((layer) => layer.linears);
  const adapted = linears.flatMap(({ lora }, i) => (lora ? [{ i, lora }] : []));
  const biased = linears.flatMap(({ bias }, i) => (bias ? [{ i, bias }] : []));
  return {
    norms: layers.flatMap(({ norms }) => norms.flatMap(({ weight, bias }): Tensor[] => [weight, bias])),
    weights: linears.map(({ weight }) => weight),
    biases: biased.map(({ bias }) => bias),
    lora_A: adapted.map(({ lora }) => lora.lora_A.weight),
    lora_B: adapted.map(({ lora }) => lora.lora_B.weight),
    attrs: {
      biased: biased.map(({ i }) => i),
      adapted: adapted.map(({ i }) => i),
      scalings: adapted.map(({ lora }) => lora.scaling),
    },
  };
}

/** The inverse of `layerLists`. */
export function layersOf<P extends PlainLayer>(
  { norms, weights, biases, lora_A, lora_B }: LayerLists<Tensor>,
  { biased, adapted, scalings }: LayerListsAttrs,
): P[] {
  const linears = weights.map((weight, i) => {
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
  const count = norms.length / 4;
  const each = linears.length / count;
  return Array.from({ length: count }, (_, i) => ({
    norms: [0, 2].map((at) => ({ weight: norms[4 * i + at], bias: norms[4 * i + at + 1] })),
    linears: linears.slice(each * i, each * (i + 1)),
  })) as unknown as P[];
}
