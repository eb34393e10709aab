import { describe, expect, it } from 'vitest';
import { deviation, leastDifference, studentT } from './statistics';

describe('differences that could be chance', () => {
  it('have the quantiles of Student, which scipy.stats.t.ppf(0.975, n) gives', () => {
    const table = [
      [4, 2.7764],
      [8, 2.306],
      [10, 2.2281],
      [20, 2.086],
      [100, 1.984],
    ];
    for (const [freedom, quantile] of table)
      expect(Math.abs(studentT(freedom) / quantile - 1)).toBeLessThan(0.02);
  });

  it('are none when a seed adds the same to all variants', () => {
    expect(
      leastDifference([
        [1, 2, 4],
        [3, 4, 6],
        [0, 1, 3],
      ]),
    ).toBeCloseTo(0, 12);
  });

  it('are those of a randomised block design', () => {
    // residuals ±0.25 in each cell of a 2 × 2 table: mean square 0.25 with one degree of freedom
    const rows = [
      [1, 2],
      [2, 2],
    ];
    expect(leastDifference(rows)).toBeCloseTo(studentT(1) * Math.sqrt(0.25 * (2 / 2)), 10);
  });

  it('have the deviation of a sample', () => {
    expect(deviation([1, 2, 3])).toBe(1);
  });
});
