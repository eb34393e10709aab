/** Means, spreads, and which differences between variants could be chance. */

export const mean = (values: readonly number[]) =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** Standard deviation of a sample. */
export function deviation(values: readonly number[]): number {
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1));
}

/**
 * The smallest difference between two means that is not chance, at 95 %: rows are variants, columns seeds. All variants of a
 * seed have the same pictures, so what a seed adds to all of them is taken out first (a randomised block design).
 */
export function leastDifference(rows: readonly (readonly number[])[]): number {
  const [variants, seeds] = [rows.length, rows[0].length];
  const all = mean(rows.flat());
  const ofSeed = Array.from({ length: seeds }, (_, s) => mean(rows.map((row) => row[s])));
  let squares = 0;
  for (const row of rows)
    for (const [s, value] of row.entries()) squares += (value - mean(row) - ofSeed[s] + all) ** 2;
  const freedom = (variants - 1) * (seeds - 1);
  return studentT(freedom) * Math.sqrt((squares / freedom) * (2 / seeds));
}

/** The two-sided 95 % quantile of Student's t, by Cornish and Fisher's expansion: within 2 % from 4 degrees of freedom. */
export function studentT(freedom: number): number {
  const z = 1.959964;
  return z + (z ** 3 + z) / (4 * freedom) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * freedom ** 2);
}
