// The layers of a decoder during generation, in one call of the addon.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NnKernel } from './kernel';
import { expectShape } from './shape-checks';

/** A list that has the values at the places `at`, and null elsewhere. */
function placed<T>(length: number, at: readonly number[], values: readonly T[]): (T | null)[] {
  const list = new Array<T | null>(length).fill(null);
  at.forEach((place, i) => (list[place] = values[i]!));
  return list;
}

export const decoderLayers: NnKernel<'NnDecoderLayers'> = (inputs, attrs, backend) => {
  const { x, keyMask, norms, weights, biases, lora_A, lora_B, keys, values } = inputs;
  const { numHeads, eps, normFirst, activation, biased, adapted, scalings, rows } = attrs;
  const [B, T, D] = x.shape as [number, number, number];
  const F = weights[4]!.shape[0]!;
  weights.forEach((weight, i) => {
    const shape = [i % 6 === 4 ? F : D, i % 6 === 5 ? F : D];
    expectShape('NnDecoderLayers', `weights ${i}`, weight, shape);
  });
  const operand = (weight: TensorInfo) =>
    backend.operand(weight, true, { M: B * T, N: weight.shape[0]!, K: weight.shape[1]! });
  const floats = (tensors: readonly TensorInfo[]) => tensors.map((tensor) => backend.floats(tensor));
  const ofLinears = <V>(at: readonly number[], list: readonly V[]) => placed(weights.length, at, list);
  const matrices = weights.map(operand);
  const lows = lora_A.map(operand);
  const made = () => backend.allocate([B, T, D]);
  const y = made();
  const own = Array.from({ length: weights.length / 6 }, () => ({ k: made(), v: made() }));
  backend.addon.decoderLayers(
    [B, T, D, F, numHeads],
    backend.floats(x),
    floats(norms),
    eps,
    normFirst,
    activation,
    matrices.map((one) => one.packed ?? one.values),
    ofLinears(biased, floats(biases)),
    ofLinears(
      adapted,
      lows.map((one) => one.packed ?? (one.values as Float32Array)),
    ),
    ofLinears(adapted, floats(lora_B)),
    ofLinears(adapted, scalings).map((scaling) => scaling ?? 0),
    [...matrices, ...ofLinears(adapted, lows)].map((one) => (one?.packed ? 1 : 0)),
    (D / numHeads) ** -0.5,
    rows.map((_, page) => keys[page]!.shape[1]!),
    floats(keys),
    floats(values),
    rows,
    backend.floatsOrNull(keyMask),
    own.map(({ k }) => k.values),
    own.map(({ v }) => v.values),
    y.values,
    backend.precision,
  );
  return [y.info, ...own.flatMap(({ k, v }) => [k.info, v.info])];
};
