import { expect, it } from 'vitest';
import { onEveryBackend } from '../spec/fixtures';
import {
  dispose,
  gatherRows,
  linear,
  logSoftmax,
  mean,
  memory,
  mul,
  sum,
  tensor,
  tidy,
  valueAndGrads,
  variable,
} from './index';
import type { Scalar, Tensor } from './index';

const N = 1e7;

/** All elements are one float32 number, the worst case of a chain: each addition is rounded in the same direction. */
const alike = (...shape: number[]) =>
  tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(0.1), shape);

onEveryBackend('long sums', () => {
  const tenth = Math.fround(0.1);
  const cases: [string, number[], (x: Tensor) => Tensor, number][] = [
    ['sum of ten million', [N], (x) => sum(x), N * tenth],
    ['mean of ten million', [N], (x) => mean(x), tenth],
    ['sum of rows', [N / 4, 4], (x) => sum(x, 0), (N / 4) * tenth],
    ['sum of columns that are no multiple of a block', [4, 100_003], (x) => sum(x, 1), 100_003 * tenth],
    ['sum of the middle axis', [2, 100_003, 3], (x) => sum(x, 1, true), 100_003 * tenth],
    ['log-softmax of a large vocabulary', [2, 300_000], (x) => logSoftmax(x), -Math.log(300_000)],
  ];
  it.each(cases)('%s: right to 1e-6, and nothing leaks', async (_, shape, f, exact) => {
    const x = alike(...shape);
    const before = memory().numTensors;
    const y = tidy(() => f(x));
    const values = await y.data();
    dispose(y);
    expect(memory().numTensors).toBe(before);
    dispose(x);
    for (const value of values.slice(0, 12)) expect(Math.abs(value / exact - 1)).toBeLessThan(1e-6);
  });

  it('the gradients of a row that is used 100,003 times, and of a weight over as many rows, are right', async () => {
    const K = 100_003;
    const [x, dy] = [alike(K, 3), alike(K, 2)];
    const [table, weight] = [variable(alike(2, 3)), variable(alike(2, 3))];
    const [ofTable, ofWeight] = tidy(() => [
      valueAndGrads(() => sum(mul(gatherRows(table, new Int32Array(K)), x)) as Scalar, [table]).grads[0],
      valueAndGrads(() => sum(mul(linear({ weight } as never, x) as Tensor, dy)) as Scalar, [weight])
        .grads[0],
    ]);
    const [rows, products] = [await ofTable.data(), await ofWeight.data()];
    expect(Math.abs(rows[0] / (K * tenth) - 1)).toBeLessThan(2e-5);
    expect(Math.abs(products[0] / (K * tenth * tenth) - 1)).toBeLessThan(2e-5);
    dispose([x, dy, ofTable, ofWeight, table, weight]);
  });

  it('keeps the shape of kept dimensions', () => {
    const x = alike(2, 300, 3);
    const [y, z] = [sum(x, 1, true), sum(x, 1)];
    expect([y.shape, z.shape]).toEqual([
      [2, 1, 3],
      [2, 3],
    ]);
    dispose([x, y, z]);
  });
});
