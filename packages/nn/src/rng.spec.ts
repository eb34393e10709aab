import { describe, expect, it } from 'vitest';
import { fold, normal, permutation, philox, randomWords, rngKey, uniform } from './rng';

describe('philox', () => {
  // From the known answers of Random123; only this one has a counter with 0 as the last word.
  it('gives the published block for the zero key and counter', () => {
    const out = new Uint32Array(4);
    philox({ k0: 0, k1: 0 }, 0, 0, 0, out);
    expect([...out].map((x) => x.toString(16))).toEqual(['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']);
  });
});

describe('streams', () => {
  it('do not depend on how many values are drawn', () => {
    expect([...uniform(rngKey(1), 13).subarray(0, 5)]).toEqual([...uniform(rngKey(1), 5)]);
    expect([...randomWords(rngKey(1), 9).subarray(0, 3)]).toEqual([...randomWords(rngKey(1), 3)]);
  });

  it('differ by seed, by high seed bits and by fold', () => {
    const first = (key: { k0: number; k1: number }) => randomWords(key, 1)[0];
    const keys = [
      rngKey(1),
      rngKey(2),
      rngKey(1 + 2 ** 32),
      fold(rngKey(1), 0),
      fold(rngKey(1), 1),
      fold(rngKey(1), 'a'),
      fold(rngKey(1), 'b'),
    ];
    expect(new Set(keys.map(first)).size).toBe(keys.length);
  });

  it('are uniform and normal to four standard errors', () => {
    const n = 40_000;
    const u = uniform(rngKey(3), n);
    expect(Math.abs(u.reduce((a, x) => a + x, 0) / n - 0.5)).toBeLessThan(4 * Math.sqrt(1 / 12 / n));
    const z = normal(rngKey(4), n);
    expect(Math.abs(z.reduce((a, x) => a + x, 0) / n)).toBeLessThan(4 / Math.sqrt(n));
    expect(Math.abs(z.reduce((a, x) => a + x * x, 0) / n - 1)).toBeLessThan(4 * Math.sqrt(2 / n));
  });

  it('permutation contains each index once', () => {
    expect([...permutation(rngKey(5), 100)].sort((a, b) => a - b)).toEqual(
      Array.from({ length: 100 }, (_, i) => i),
    );
    expect([...permutation(rngKey(5), 100)]).not.toEqual([...permutation(rngKey(6), 100)]);
  });

  it('refuses a seed that is not a whole number', () => {
    expect(() => rngKey(1.5)).toThrow(/found 1.5/);
    expect(() => rngKey(-1)).toThrow(/found -1/);
  });
});
