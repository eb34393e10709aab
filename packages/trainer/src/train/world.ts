/** Processes that train one model together: every rank has all weights and a share of each batch. */
import type { Tensor } from '@blip2/nn';
import { dispose, tensor } from '@blip2/nn';

/**
 * Every rank calls the same functions in the same order, and each call waits for all ranks. A rank that fails must end the
 * world, because the others would wait for it without end.
 */
export interface World {
  readonly rank: number;
  readonly size: number;
  /** The sum of each tensor over all ranks, with the same bits on every rank. Returns or disposes of the inputs. */
  sum(tensors: Tensor[]): Promise<Tensor[]>;
  /** Is the flag set on any rank? */
  any(flag: boolean): Promise<boolean>;
  barrier(): Promise<void>;
}

/** The world of a single process. */
export const alone: World = {
  rank: 0,
  size: 1,
  sum: async (tensors) => tensors,
  any: async (flag) => flag,
  barrier: async () => undefined,
};

/** Each number summed over all ranks, in float32, so counts are exact up to 2^24. A single process returns them unchanged. */
export async function sumNumbers(world: World, numbers: number[]): Promise<number[]> {
  if (world.size === 1) return numbers;
  const [total] = await world.sum([tensor(numbers, [numbers.length])]);
  const values = await total.data();
  dispose(total);
  return [...values];
}
