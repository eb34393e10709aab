/** Processes that train one model together: every rank has all weights and a share of each batch. */
import type { Tensor } from '@blip2/nn';
import { dispose, tensor } from '@blip2/nn';

/**
 * Every rank calls the same functions in the same order, and each call waits for all ranks. A rank that fails must send its error
 * to the others (`shareWork`) or end the world, because they would wait for it without end.
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

/** A rank failed, so none can go on. */
export class RankError extends Error {
  override readonly name = 'RankError';
}

/**
 * Runs this rank's share of some work, in which ranks do not wait for each other. When one fails, all ranks throw.
 * @throws its own error on rank 0, so that its kind is kept; otherwise RankError, which names the first rank that failed
 */
export async function shareWork<T>(world: World, work: () => Promise<T>): Promise<T> {
  if (world.size === 1) return work();
  const [own] = await Promise.allSettled([work()]);
  if (!(await world.any(own.status === 'rejected')) && own.status === 'fulfilled') return own.value;
  return failTogether(world, own.status === 'rejected' ? own.reason : undefined);
}

/**
 * Ends the work of all ranks, once all know that one has failed. Every rank calls it.
 * @param error this rank's own, if it has failed
 * @throws as shareWork
 */
export async function failTogether(world: World, error?: unknown): Promise<never> {
  const errors = await gather(world, error === undefined ? '' : String(error));
  if (world.rank === 0 && error !== undefined) throw error;
  const rank = errors.findIndex((text) => text !== '');
  throw new RankError(`process ${rank + 1} of ${world.size} failed: ${errors[rank]}`);
}

/** The texts of all ranks, in order of rank, on every rank. */
export async function gather(world: World, own: string): Promise<string[]> {
  if (world.size === 1) return [own];
  const bytes = Buffer.from(own);
  const digits = new Array<number>(2 * world.size).fill(0);
  digits.splice(2 * world.rank, 2, Math.floor(bytes.length / BASE), bytes.length % BASE);
  const summed = await sumNumbers(world, digits);
  const lengths = Array.from(
    { length: world.size },
    (_, rank) => summed[2 * rank] * BASE + summed[2 * rank + 1],
  );
  const starts = lengths.map((_, rank) => lengths.slice(0, rank).reduce((sum, length) => sum + length, 0));
  const place = new Float32Array(starts.at(-1)! + lengths.at(-1)!);
  place.set(bytes, starts[world.rank]);
  const [total] = await world.sum([tensor(place, [place.length])]);
  const all = Buffer.from((await total.data()) as Float32Array);
  dispose(total);
  return lengths.map((length, rank) => all.toString('utf8', starts[rank], starts[rank] + length));
}

/** A length is summed as two numbers that float32 holds exactly. */
const BASE = 4096;

/** What rank 0 makes, on every rank. It must be JSON. */
export async function fromFirst<T>(world: World, make: () => Promise<T>): Promise<T> {
  if (world.size === 1) return make();
  const [text] = await gather(world, world.rank === 0 ? JSON.stringify(await make()) : '');
  return JSON.parse(text) as T;
}

/** Each number summed over all ranks, in float32, so counts are exact up to 2^24. A single process returns them unchanged. */
export async function sumNumbers(world: World, numbers: number[]): Promise<number[]> {
  if (world.size === 1) return numbers;
  const [total] = await world.sum([tensor(numbers, [numbers.length])]);
  const values = await total.data();
  dispose(total);
  return [...values];
}
