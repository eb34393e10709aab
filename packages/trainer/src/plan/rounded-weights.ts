/** Bytes of weights that the precisions int8 and int4 round. */
import { bitsOf, blip2Weights, isOwnQuantised, isRounded, outputLayerName } from '@blip2/blip2';
import type { Blip2Config } from '@blip2/blip2';
import { weightBits } from '@blip2/nn';
import type { PlanFacts } from './facts';

const FLOAT = 4;
/** A smaller matrix is an ordinary tensor (`smallestStored` of backend-native). */
export const STORED_FROM = 1 << 20;

/** In whole blocks of 32 by 32, or 32 by 64 with their steps; with a scale for each row and a factor for each column. */
export const roundedBytes = ([rows, columns]: [number, number], bits: 8 | 4): number =>
  Math.ceil(rows / 32) * Math.ceil((columns * bits) / 256) * (bits === 8 ? 1024 : 1024 + 32) +
  FLOAT * (rows + columns);

/** Of the copy of the output layer in 8 bits, with which texts are written. */
export function outputLayerBytes(config: Blip2Config): number {
  const shape = outputLayerShape(config);
  return shape[0] * shape[1] >= STORED_FROM ? roundedBytes(shape, 8) : 0;
}

function outputLayerShape(config: Blip2Config): [number, number] {
  const name = outputLayerName(config);
  return blip2Weights(config).find(([one]) => one === name)![1] as [number, number];
}

/** Checkpoints with own int4 weights have them in the text model; these are used as they are. */
export const isInt4 = (config: Blip2Config, name: string): boolean =>
  bitsOf(name, 4) === 4 && isOwnQuantised(config.raw);

/** Of the file beside the feature cache that keeps them. */
export function roundedFileBytes({ model: { config }, machine }: PlanFacts): number {
  const text_bits = weightBits(machine.precision);
  if (!text_bits || !machine.stores) return 0;
  return blip2Weights(config).reduce(
    (sum, [name, shape]) => {
      if (!isRounded(name, { shape }) || isInt4(config, name)) return sum;
      return sum + roundedBytes(shape as [number, number], bitsOf(name, text_bits));
    },
    roundedBytes(outputLayerShape(config), 8),
  );
}
