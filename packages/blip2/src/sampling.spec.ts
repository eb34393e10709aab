import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { drawOf, drawToken, softmax, textKey, warpScores } from './sampling';

const all = { temperature: 1, top_k: 0, top_p: 1 };
const warped = (scores: number[], rules: Partial<typeof all>) => {
  const row = Float32Array.from(scores);
  warpScores(row, { ...all, ...rules });
  return [...row];
};
const out = -Infinity;

describe('warpScores', () => {
  it('temperature divides', () => {
    expect(warped([1, 2, -4], { temperature: 2 })).toEqual([0.5, 1, -2]);
  });

  it('top_k keeps the k largest and those equal to the last of them', () => {
    expect(warped([1, 3, 2, 0], { top_k: 2 })).toEqual([out, 3, 2, out]);
    expect(warped([1, 3, 1, 1], { top_k: 2 })).toEqual([1, 3, 1, 1]);
    expect(warped([1, 3], { top_k: 9 })).toEqual([1, 3]);
  });

  it('top_p keeps the likeliest tokens whose sum reaches it, at least one', () => {
    const scores = [0.5, 0.3, 0.15, 0.05].map(Math.log);
    const kept = (top_p: number) => warped(scores, { top_p }).map((x) => x > out);
    expect(kept(0.4)).toEqual([true, false, false, false]);
    expect(kept(0.6)).toEqual([true, true, false, false]);
    expect(kept(0.9)).toEqual([true, true, true, false]);
    expect(kept(0)).toEqual([true, false, false, false]);
    expect(kept(1)).toEqual([true, true, true, true]);
  });

  it('never bans the likeliest token under any rules', () => {
    const row = fc.array(fc.double({ min: -20, max: 20, noNaN: true }), { minLength: 1, maxLength: 30 });
    const rules = fc.record({
      temperature: fc.double({ min: 0.1, max: 5, noNaN: true }),
      top_k: fc.integer({ min: 0, max: 40 }),
      top_p: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    fc.assert(
      fc.property(row, rules, (scores, given) => {
        const result = warped(scores, given);
        // The temperature may make almost equal scores equal; the last of them counts.
        const cooled = warped(scores, { temperature: given.temperature });
        expect(result[cooled.lastIndexOf(Math.max(...cooled))]).toBeGreaterThan(out);
      }),
    );
  });
});

describe('drawToken', () => {
  it('returns the token whose part of [0, 1) contains the number, never a banned one', () => {
    const probs = softmax(Float32Array.from([0.25, 0, 0.5, 0.25].map(Math.log)));
    expect([0, 0.24, 0.26, 0.74, 0.76, 0.9999999].map((u) => drawToken(probs, u))).toEqual([
      0, 0, 2, 2, 3, 3,
    ]);
    expect(drawToken(Float64Array.of(0.3, 0.6999999, 0), 0.99999999)).toBe(1); // the sum ends below 1
  });

  it('drawn numbers depend on seed, text and position', () => {
    const at = (seed: number, text: number, position: number) => drawOf(textKey(seed, text), position);
    const seen = new Set([at(0, 0, 0), at(1, 0, 0), at(0, 1, 0), at(0, 0, 1)]);
    expect(seen.size).toBe(4);
    expect(at(3, 5, 7)).toBe(at(3, 5, 7));
  });
});
