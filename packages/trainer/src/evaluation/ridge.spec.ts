import { normal, rngKey } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Matrix } from './ridge';
import { ridgePredict, timesTransposed } from './ridge';

const random = (seed: number, rows: number, cols: number): Matrix => ({
  data: normal(rngKey(seed), rows * cols),
  rows,
  cols,
});

/** Kq (K + λI)⁻¹ Y by Gauss–Jordan elimination in float64: slow and obvious. */
function plainRidge(k: Matrix, q: Matrix, y: Matrix, strength: number): number[] {
  const n = k.rows;
  const rows = Array.from({ length: n }, (_, i) => [
    ...Array.from({ length: n }, (_, j) => k.data[i * n + j] + (i === j ? strength : 0)),
    ...y.data.subarray(i * y.cols, (i + 1) * y.cols),
  ]);
  for (let p = 0; p < n; p++) {
    const pivot = rows[p][p];
    rows[p] = rows[p].map((value) => value / pivot);
    for (let i = 0; i < n; i++) {
      const factor = rows[i][p];
      if (i !== p) rows[i] = rows[i].map((value, j) => value - factor * rows[p][j]);
    }
  }
  return Array.from({ length: q.rows * y.cols }, (_, at) => {
    const [i, t] = [Math.floor(at / y.cols), at % y.cols];
    return rows.reduce((sum, row, j) => sum + q.data[i * n + j] * row[n + t], 0);
  });
}

beforeAll(async () => {
  await useBackend();
});

describe('timesTransposed', () => {
  it('is A·Bᵀ', async () => {
    const a = { data: Float32Array.of(1, 2, 3, 4, 5, 6), rows: 2, cols: 3 };
    const b = { data: Float32Array.of(1, 0, -1), rows: 1, cols: 3 };
    expect([...(await timesTransposed(a, b)).data]).toEqual([-2, -2]);
  });
});

describe('ridgePredict', () => {
  // 150 rows are more than one block of the elimination
  it.each([0.003, 0.3])('solves the ridge problem at strength %s', async (strength) => {
    const [x, fresh, y] = [random(1, 150, 40), random(2, 7, 40), random(3, 150, 3)];
    x.data.forEach((value, i) => (x.data[i] = value / Math.sqrt(40)));
    const kernel = await timesTransposed(x, x);
    const queries = await timesTransposed(fresh, x);
    const found = (await ridgePredict(kernel, queries, y, strength))!;
    const wanted = plainRidge(kernel, queries, y, strength);
    const size = Math.max(...wanted.map(Math.abs));
    found.data.forEach((value, i) => expect(Math.abs(value - wanted[i]) / size).toBeLessThan(2e-3));
  });

  it('says so when the matrix is not positive definite', async () => {
    const kernel = { data: Float32Array.of(1, 2, 2, 1), rows: 2, cols: 2 };
    const row = { data: Float32Array.of(1, 1), rows: 1, cols: 2 };
    expect(await ridgePredict(kernel, row, { data: row.data, rows: 2, cols: 1 }, 0.01)).toBeUndefined();
  });
});
