// A layer of a decoder during generation, in one call of the addon.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NnKernel } from './kernel';
import { expectShape } from './shape-checks';

/** One entry for each of the six linears: what the lists have for those in `at`, else null. */
const placed = <T>(at: readonly number[], values: readonly T[]): (T | null)[] =>
  Array.from({ length: 6 }, (_, i) => (at.includes(i) ? values[at.indexOf(i)]! : null));

export const decoderLayer: NnKernel<'NnDecoderLayer'> = (inputs, attrs, backend) => {
  const { x, keyMask, norms, weights, biases, lora_A, lora_B, keys, values } = inputs;
  const { numHeads, eps, normFirst, activation, biased, adapted, scalings, rows } = attrs;
  const [B, T, D] = x.shape as [number, number, number];
  const F = weights[4]!.shape[0]!;
  weights.forEach((weight, i) =>
    expectShape('NnDecoderLayer', `weights ${i}`, weight, [i === 4 ? F : D, i === 5 ? F : D]),
  );
  const operand = (weight: TensorInfo) =>
    backend.operand(weight, true, { M: B * T, N: weight.shape[0]!, K: weight.shape[1]! });
  const matrices = weights.map(operand);
  const lows = lora_A.map(operand);
  const packed = [...matrices, ...placed(adapted, lows)].map((one) => (one?.packed ? 1 : 0));
  const [k, v, y] = [0, 1, 2].map(() => backend.allocate([B, T, D])) as [Made, Made, Made];
  backend.addon.decoderLayer(
    [B, T, D, F, numHeads],
    backend.floats(x),
    norms.map((norm) => backend.floats(norm)),
    eps,
    normFirst,
    activation,
    matrices.map((one) => one.packed ?? one.values),
    placed(
      biased,
      biases.map((bias) => backend.floats(bias)),
    ),
    placed(
      adapted,
      lows.map((one) => one.packed ?? (one.values as Float32Array)),
    ),
    placed(
      adapted,
      lora_B.map((one) => backend.floats(one)),
    ),
    placed(adapted, scalings).map((scaling) => scaling ?? 0),
    packed,
    (D / numHeads) ** -0.5,
    keys.map(({ shape }) => shape[1]!),
    keys.map((key) => backend.floats(key)),
    values.map((value) => backend.floats(value)),
    rows,
    backend.floatsOrNull(keyMask),
    ...[k.values, v.values, y.values],
    backend.precision,
  );
  return [y.info, k.info, v.info];
};

type Made = { info: TensorInfo; values: Float32Array };
