import { describe, expect, it } from 'vitest';
import { memoryBudget } from './decode-budget';

/** Starts jobs of these sizes and lets them end in order of start; returns what ran together, in bytes. */
async function mostAtOnce(limit: number, sizes: number[]) {
  const budget = memoryBudget(limit);
  let [used, most] = [0, 0];
  const started: number[] = [];
  const jobs = sizes.map((bytes, i) =>
    budget(bytes, async () => {
      started.push(i);
      most = Math.max(most, (used += bytes));
      await new Promise((resolve) => setImmediate(resolve));
      used -= bytes;
      return i;
    }),
  );
  expect(await Promise.all(jobs)).toEqual(sizes.map((_, i) => i));
  expect(started).toEqual(sizes.map((_, i) => i));
  return most;
}

describe('memoryBudget', () => {
  it('lets jobs run together as long as they fit', async () => {
    expect(await mostAtOnce(10, [4, 4, 4, 4])).toBe(8);
    expect(await mostAtOnce(10, [3, 3, 4, 1])).toBe(10);
    expect(await mostAtOnce(10, [1, 1, 1])).toBe(3);
  });

  it('runs a job that is larger than the limit alone, and never before earlier ones', async () => {
    expect(await mostAtOnce(10, [5, 25, 5, 5])).toBe(25);
    expect(await mostAtOnce(10, [9, 2, 1, 8])).toBe(9);
  });

  it('frees the memory of a job that fails', async () => {
    const budget = memoryBudget(1);
    await expect(budget(1, () => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
    expect(await budget(1, () => Promise.resolve('next'))).toBe('next');
  });
});
