import { expect, it } from 'vitest';
import { expectClose, onEveryBackend } from '../../spec/fixtures';
import { FD_TOLERANCE, gradientError, random } from '../conformance';
import { crossEntropy, dispose, linear, linearCrossEntropy, tidy, valueAndGrads } from '../index';
import type { Tensor, Tensor1D, Tensor2D } from '../index';

onEveryBackend('losses', () => {
  it('crossEntropy: ignores negative labels, smooths, and has the right gradient', async () => {
    const logits = random<Tensor2D>('logits', 4, 6);
    const labels = new Int32Array([2, -100, 5, 0]);
    const xs = await logits.data();
    const rows = [...labels].flatMap((label, m) => {
      if (label < 0) return [];
      const row = [...xs.slice(m * 6, m * 6 + 6)];
      const lse = Math.log(row.reduce((a, x) => a + Math.exp(x), 0));
      return [0.9 * (lse - row[label]) + (0.1 / 6) * row.reduce((a, x) => a + lse - x, 0)];
    });
    await expectClose(
      tidy(() => crossEntropy(logits, labels, 0.1)),
      [rows.reduce((a, x) => a + x, 0) / rows.length],
    );
    expect(await gradientError((x) => crossEntropy(x as Tensor2D, labels, 0.1), [logits])).toBeLessThan(
      FD_TOLERANCE,
    );
    expect(() => crossEntropy(logits, new Int32Array(4).fill(-100))).toThrow(
      /expected at least one labelled row, found none/,
    );
    expect(() => crossEntropy(logits, new Int32Array([6, 0, 0, 0]))).toThrow(/label 6 .*vocabulary of 6/);
  });

  it('linearCrossEntropy: the same as crossEntropy of linear, in value and gradients, at odd sizes', async () => {
    for (const [M, D, V] of [
      [1, 1, 2],
      [2, 3, 5],
      [7, 17, 33],
      [65, 9, 64],
      [5, 8, 700],
    ]) {
      const [x, weight] = [random<Tensor2D>(`x${M}`, M, D), random<Tensor2D>(`w${M}`, V, D)];
      const labels = Int32Array.from({ length: M }, (_, i) => (i % 3 === 1 ? -100 : (i * 5) % V));
      for (const smoothing of [0, 0.1]) {
        const fused = (x: Tensor, w: Tensor) =>
          linearCrossEntropy({ weight: w as Tensor2D }, x as Tensor2D, labels, smoothing);
        const plain = (x: Tensor, w: Tensor) =>
          crossEntropy(linear({ weight: w as Tensor2D }, x as Tensor2D), labels, smoothing);
        const [found, want] = [fused, plain].map((f) => valueAndGrads(() => f(x, weight), [x, weight]));
        await expectClose(found.value, await want.value.data());
        for (const i of [0, 1]) await expectClose(found.grads[i], await want.grads[i].data());
        if (M < 60) expect(await gradientError(fused, [x, weight])).toBeLessThan(FD_TOLERANCE);
        dispose([found, want]);
      }
    }
  });

  it('linearCrossEntropy: no gradient for a frozen weight; a bias or adapter works too', async () => {
    const [x, weight] = [random<Tensor2D>('x', 4, 6), random<Tensor2D>('w', 9, 6)];
    const [bias, labels] = [random<Tensor1D>('b', 9), new Int32Array([2, -100, 8, 0])];
    const p = { weight, bias };
    await expectClose(
      tidy(() => linearCrossEntropy(p, x, labels)),
      await tidy(() => crossEntropy(linear(p, x), labels)).data(),
    );
    expect(
      await gradientError((x) => linearCrossEntropy({ weight }, x as Tensor2D, labels), [x]),
    ).toBeLessThan(FD_TOLERANCE);
    expect(() => linearCrossEntropy({ weight }, x, new Int32Array(3))).toThrow(
      /expected 4 labels, one for each row of x, found 3/,
    );
    expect(() => linearCrossEntropy({ weight }, x, new Int32Array([9, 0, 0, 0]))).toThrow(/vocabulary of 9/);
    expect(() => linearCrossEntropy({ weight }, random<Tensor2D>('y', 4, 5), labels)).toThrow(/width 6/);
  });
});
