import { describe, expect, it } from 'vitest';
import { checkSeed, permutation, randomWord } from './random';

describe('random', () => {
  it('gives a fixed order: a change would break resumed runs', () => {
    expect(Array.from(permutation(0, 1, 10))).toEqual([4, 6, 0, 3, 7, 2, 5, 9, 8, 1]);
    expect(randomWord(2 ** 40 + 7, 3, 9)).toBe(1717363387);
  });

  it('gives permutations that depend on seed, high seed bits and stream', () => {
    const orders = [
      permutation(1, 1, 500),
      permutation(2, 1, 500),
      permutation(1, 2, 500),
      permutation(1 + 2 ** 32, 1, 500),
    ];
    for (const order of orders) expect([...order].sort((a, b) => a - b)).toEqual([...Array(500).keys()]);
    expect(new Set(orders.map(String)).size).toBe(4);
    expect(permutation(1, 1, 0)).toHaveLength(0);
  });

  it('is uniform: the 24 permutations of 4 items are equally frequent', () => {
    const counts = new Map<string, number>();
    for (let seed = 0; seed < 24_000; seed++) {
      const key = permutation(seed, 1, 4).join('');
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    // chi-square with 23 degrees of freedom: 49.7 is exceeded once in a thousand
    const chi2 = [...counts.values()].reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
    expect(counts.size).toBe(24);
    expect(chi2).toBeLessThan(49.7);
  });

  it('refuses seeds that are not integers', () => {
    expect(() => checkSeed(1.5)).toThrow(/seed: expected an integer/);
    expect(() => checkSeed(-1)).toThrow(RangeError);
  });
});
