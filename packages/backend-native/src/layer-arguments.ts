// Layers as arguments of the addon: the lists of `LinearArguments` (addon.ts).
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { KernelName, LayerLists, LayerListsAttrs } from '@blip2/nn';
import type { Floats, LinearArguments } from './addon';
import type { NativeBackend } from './backend';
import { expectShape } from './shape-checks';

/** A list that has the values at the places `at`, and null elsewhere. */
function placed<T>(length: number, at: readonly number[], values: readonly T[]): (T | null)[] {
  const list = new Array<T | null>(length).fill(null);
  at.forEach((place, i) => (list[place] = values[i]!));
  return list;
}

/** `M`: rows of the input; `shapes`: those of the weights of a layer. */
export function layerArguments(
  kernel: KernelName,
  { norms, weights, biases, lora_A, lora_B }: LayerLists<TensorInfo>,
  { biased, adapted, scalings }: LayerListsAttrs,
  { M, shapes }: { M: number; shapes: readonly number[][] },
  backend: NativeBackend,
): { norms: Floats[]; linears: LinearArguments } {
  weights.forEach((weight, i) => expectShape(kernel, `weights ${i}`, weight, shapes[i % shapes.length]!));
  const operand = (weight: TensorInfo) =>
    backend.operand(weight, true, { M, N: weight.shape[0]!, K: weight.shape[1]! });
  const floats = (tensors: readonly TensorInfo[]) => tensors.map((tensor) => backend.floats(tensor));
  const ofLinears = <V>(at: readonly number[], list: readonly V[]) => placed(weights.length, at, list);
  const matrices = weights.map(operand);
  const lows = lora_A.map(operand);
  return {
    norms: floats(norms),
    linears: [
      matrices.map((one) => one.packed ?? one.values),
      ofLinears(biased, floats(biases)),
      ofLinears(
        adapted,
        lows.map((one) => one.packed ?? (one.values as Float32Array)),
      ),
      ofLinears(adapted, floats(lora_B)),
      ofLinears(adapted, scalings).map((scaling) => scaling ?? 0),
      [...matrices, ...ofLinears(adapted, lows)].map((one) => (one?.packed ? 1 : 0)),
    ],
  };
}
