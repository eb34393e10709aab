import { expect, it } from 'vitest';
import { expectClose, onEveryBackend } from '../../spec/fixtures';
import { FD_TOLERANCE, gradientError, random } from '../conformance';
import {
  dropout,
  embedding,
  gatedGelu,
  gatherRows,
  gelu,
  layerNorm,
  relu,
  rmsNorm,
  rngKey,
  tensor,
  tidy,
  uniform,
} from '../index';
import type { Tensor, Tensor1D, Tensor2D } from '../index';

onEveryBackend('ops', () => {
  it('layerNorm: values and gradients', async () => {
    const [x, w, b] = [random('x', 3, 2, 7), random<Tensor1D>('w', 7), random<Tensor1D>('b', 7)];
    const [xs, ws, bs] = (await Promise.all([x.data(), w.data(), b.data()])) as Float32Array[];
    const want = Array.from({ length: 6 }, (_, m) => {
      const row = [...xs.subarray(m * 7, m * 7 + 7)];
      const mu = row.reduce((a, c) => a + c, 0) / 7;
      const variance = row.reduce((a, c) => a + (c - mu) ** 2, 0) / 7;
      return row.map((c, i) => ((c - mu) / Math.sqrt(variance + 1e-3)) * ws[i] + bs[i]);
    }).flat();
    await expectClose(
      tidy(() => layerNorm({ weight: w, bias: b }, x, 1e-3)),
      want,
    );
    const f = (x: Tensor, weight: Tensor, bias: Tensor) =>
      layerNorm({ weight: weight as Tensor1D, bias: bias as Tensor1D }, x, 1e-3);
    expect(await gradientError(f, [x, w, b])).toBeLessThan(FD_TOLERANCE);
  });

  it('rmsNorm: gradients, without subtracting the mean', async () => {
    const [x, w] = [random('x', 3, 2, 7), random<Tensor1D>('w', 7)];
    const f = (x: Tensor, weight: Tensor) => rmsNorm({ weight: weight as Tensor1D }, x, 1e-3);
    expect(await gradientError(f, [x, w])).toBeLessThan(FD_TOLERANCE);
    await expectClose(
      tidy(() => f(tensor([3, 3, 3, 3], [1, 4]), tensor([1, 2, -1, 0], [4]))),
      [1, 2, -1, 0],
      1e-3,
    );
    expect(() => rmsNorm({ weight: w }, random('x', 2, 6), 1e-3)).toThrow(
      'rmsNorm: 7 weights expect inputs of width 7, found [2,6]',
    );
  });

  it('gatedGelu: gradients of both, and of one alone', async () => {
    const [gate, x] = [tensor([-6, -3, -1.5, -0.5, 0.25, 0.5, 1, 4], [2, 4]), random('x', 2, 4)];
    expect(await gradientError((gate, x) => gatedGelu(gate, x), [gate, x])).toBeLessThan(FD_TOLERANCE);
    expect(await gradientError((gate) => gatedGelu(gate, x), [gate])).toBeLessThan(FD_TOLERANCE);
    expect(await gradientError((x) => gatedGelu(gate, x), [x])).toBeLessThan(FD_TOLERANCE);
    expect(() => gatedGelu(gate, random('x', 4, 2))).toThrow(
      'gatedGelu: expected gate and x of one shape, found [2,4] and [4,2]',
    );
  });

  it('gelu and relu: values and gradients', async () => {
    const x = tensor([-6, -3, -1.5, -0.5, 0.25, 0.5, 1, 4], [2, 4]);
    // x·Φ(x) from a float64 evaluation of the error function
    const want = [
      -5.919653e-9, -0.004049694, -0.1002108, -0.15426877, 0.14967659, 0.34573123, 0.84134475, 3.9998733,
    ];
    await expectClose(
      tidy(() => gelu(x)),
      want,
      3e-6,
    );
    expect(await gradientError((x) => gelu(x), [x])).toBeLessThan(FD_TOLERANCE);
    await expectClose(
      tidy(() => relu(x)),
      [0, 0, 0, 0, 0.25, 0.5, 1, 4],
    );
    expect(await gradientError((x) => relu(x), [x])).toBeLessThan(FD_TOLERANCE);
  });

  it('embedding and gatherRows: values, repeated rows in the gradient, range check', async () => {
    const table = random<Tensor2D>('table', 5, 3);
    const rows = await table.data();
    const ids = new Int32Array([4, 0, 4, 2]);
    await expectClose(
      tidy(() => embedding({ weight: table }, ids, [2, 2])),
      [...ids].flatMap((i) => [...rows.slice(i * 3, i * 3 + 3)]),
    );
    expect(await gradientError((t) => gatherRows(t, ids), [table])).toBeLessThan(FD_TOLERANCE);
    expect(() => gatherRows(table, new Int32Array([5]))).toThrow(/index 5 .*5 rows/);
  });

  it('dropout: exactly the mask of the stream, the same mask in the gradient, nothing without a key', async () => {
    const x = random('x', 5, 13);
    const [key, rate] = [rngKey(11), 0.25];
    const [xs, draws] = [await x.data(), uniform(key, 65)];
    await expectClose(
      tidy(() => dropout(x, rate, key)),
      [...xs].map((value, i) => (draws[i] >= rate ? value / (1 - rate) : 0)),
    );
    expect(await gradientError((x) => dropout(x, rate, key), [x])).toBeLessThan(FD_TOLERANCE);
    expect(dropout(x, rate, undefined)).toBe(x);
  });
});
