import { expect, it } from 'vitest';
import { expectClose, onEveryBackend } from '../../spec/fixtures';
import { FD_TOLERANCE, gradientError, random } from '../conformance';
import {
  activatedLinear,
  add,
  dispose,
  div,
  doraNorm,
  dropout,
  gelu,
  linear,
  mul,
  relu,
  residualLinear,
  rngKey,
  scale,
  sub,
  sum,
  tensor,
  tidy,
  valueAndGrads,
  watchLinears,
} from '../index';
import type { Linear, Scalar, Tensor, Tensor1D, Tensor2D } from '../index';

onEveryBackend('linear', () => {
  it('is computed with the weight that a watcher returns, which computes others unwatched', async () => {
    const [x, weight, other] = [random('x', 5, 4), random<Tensor2D>('w', 3, 4), random<Tensor2D>('o', 3, 4)];
    const seen: Tensor2D[] = [];
    const watch = (own: Tensor2D, input: Tensor) => {
      seen.push(own);
      linear({ weight: other }, input).dispose();
      return other;
    };
    const forms = (weight: Tensor2D) => [
      linear({ weight }, x),
      residualLinear({ weight }, x, linear({ weight }, x)),
      activatedLinear('relu', { weight }, x),
    ];
    const found = watchLinears(watch, () => forms(weight));
    const wanted = forms(other);
    for (const [i, y] of found.entries()) expect(await y.data()).toEqual(await wanted[i].data());
    expect(seen).toEqual([weight, weight, weight, weight]);
    dispose([x, weight, other, found, wanted]);
  });

  it('values at odd sizes', async () => {
    for (const [M, K, N] of [
      [1, 1, 1],
      [2, 3, 5],
      [7, 17, 9],
      [33, 65, 31],
    ]) {
      const [x, w, b] = [
        random(`x${M}`, M, K),
        random<Tensor2D>(`w${M}`, N, K),
        random<Tensor1D>(`b${M}`, N),
      ];
      const [xs, ws, bs] = (await Promise.all([x.data(), w.data(), b.data()])) as Float32Array[];
      const want = Array.from({ length: M * N }, (_, e) => {
        const [m, n] = [Math.floor(e / N), e % N];
        let y = bs[n];
        for (let c = 0; c < K; c++) y += xs[m * K + c] * ws[n * K + c];
        return y;
      });
      await expectClose(
        tidy(() => linear({ weight: w, bias: b }, x)),
        want,
      );
    }
  });

  it('gradients, with and without bias and adapter, over leading dimensions', async () => {
    const [x, w, b] = [random('x', 2, 3, 5), random<Tensor2D>('w', 4, 5), random<Tensor1D>('b', 4)];
    const [A, B] = [random<Tensor2D>('A', 2, 5), random<Tensor2D>('B', 4, 2)];
    expect(
      await gradientError(
        (x, weight, bias) => linear({ weight: weight as Tensor2D, bias: bias as Tensor1D }, x),
        [x, w, b],
      ),
    ).toBeLessThan(FD_TOLERANCE);
    const adapted = (x: Tensor, A: Tensor, B: Tensor) =>
      linear(
        {
          weight: w,
          lora: {
            lora_A: { weight: A as Tensor2D },
            lora_B: { weight: B as Tensor2D },
            scaling: 2,
            dropout: 0.3,
          },
        },
        x,
        rngKey(3),
      );
    expect(await gradientError(adapted, [x, A, B])).toBeLessThan(FD_TOLERANCE);
  });

  it('with an activation: the same as two ops, recorded or not', async () => {
    const run = { gelu, relu };
    for (const [M, K, N] of [
      [1, 1, 1],
      [3, 5, 17],
      [33, 40, 65],
    ])
      for (const activation of ['gelu', 'relu'] as const) {
        const [x, weight, bias] = [random('x', M, K), random<Tensor2D>('w', N, K), random<Tensor1D>('b', N)];
        const lora = {
          ...{
            lora_A: { weight: random<Tensor2D>('A', 2, K) },
            lora_B: { weight: random<Tensor2D>('B', N, 2) },
          },
          ...{ scaling: 2, dropout: 0 },
        };
        for (const p of [{ weight, bias }, { weight }, { weight, bias, lora }]) {
          const want = tidy(() => run[activation](linear(p, x)));
          const found = tidy(() => activatedLinear(activation, p, x));
          await expectClose(found, await want.data());
          const { value, grads } = valueAndGrads(
            () => sum(activatedLinear(activation, p, x)) as Scalar,
            [x, p.weight],
          );
          const parts = valueAndGrads(() => sum(run[activation](linear(p, x))) as Scalar, [x, p.weight]);
          await expectClose(value, await parts.value.data());
          for (const i of [0, 1]) await expectClose(grads[i], await parts.grads[i].data());
          dispose({ want, found, value, grads, parts });
        }
        dispose({ x, weight, bias, lora });
      }
  });

  it('with a residual: the same as the sum, in value and all gradients, with any adapter and dropout', async () => {
    const [M, K, N] = [7, 5, 9];
    const [x, weight, bias, residual] = [
      ...[random('x', 2, M, K), random('w', N, K), random('b', N), random('r', 2, M, N)],
    ];
    const [A, B, magnitude] = [random('A', 2, K), random('B', N, 2), random('m', N)];
    const dy = random('dy', 2, M, N);
    const lora = (A: Tensor, B: Tensor) => ({
      ...{ lora_A: { weight: A as Tensor2D }, lora_B: { weight: B as Tensor2D } },
      ...{ scaling: 1.5, dropout: 0.2 },
    });
    const adapters = {
      none: () => undefined,
      lora,
      dora: (A: Tensor, B: Tensor) => ({ ...lora(A, B), lora_magnitude_vector: magnitude as Tensor1D }),
    };
    const xs = [x, weight, bias, residual];
    for (const [name, adapter] of Object.entries(adapters))
      for (const rate of [0, 0.4]) {
        const leaves = name === 'none' ? xs : [...xs, A, B];
        const keys = { key: rngKey(1), drop: rngKey(2) };
        const linearOf = (): Linear => ({
          weight: weight as Tensor2D,
          bias: bias as Tensor1D,
          lora: adapter(A, B),
        });
        const fused = () =>
          residualLinear(linearOf(), x, residual, { key: keys.key, dropout: { rate, key: keys.drop } });
        const parts = () => add(dropout(linear(linearOf(), x, keys.key), rate, keys.drop), residual);
        const [found, want] = [fused, parts].map((f) =>
          valueAndGrads(() => sum(mul(f(), dy)) as Scalar, leaves),
        );
        const [y, sumOfParts] = [tidy(fused), tidy(parts)];
        await expectClose(y, await sumOfParts.data(), 1e-5);
        for (const i of leaves.keys()) await expectClose(found.grads[i], await want.grads[i].data(), 1e-5);
        dispose({ found, want, y, sumOfParts });
      }
    expect(() => residualLinear({ weight: weight as Tensor2D }, x, x)).toThrow(
      'residualLinear: expected a residual [2,7,9], found [2,7,5]',
    );
    dispose({ xs, A, B, magnitude, dy });
  });

  it('with an adapter: the same as its parts, in value and all gradients, at odd sizes', async () => {
    for (const [M, inp, out, r, rate] of [
      [1, 1, 1, 1, 0],
      [3, 5, 4, 2, 0.3],
      [17, 33, 9, 3, 0.5],
      [65, 31, 64, 16, 0],
      [33, 64, 65, 8, 0.1],
    ]) {
      const [x, weight] = [random('x', M, 2, inp), random<Tensor2D>('w', out, inp)];
      const [bias, A, B] = [
        random<Tensor1D>('b', out),
        random<Tensor2D>('A', r, inp),
        random<Tensor2D>('B', out, r),
      ];
      const key = rngKey(M);
      const fused = (x: Tensor, weight: Tensor, bias: Tensor, A: Tensor, B: Tensor) =>
        linear(
          {
            ...({ weight, bias } as { weight: Tensor2D; bias: Tensor1D }),
            lora: {
              lora_A: { weight: A as Tensor2D },
              lora_B: { weight: B as Tensor2D },
              scaling: 1.7,
              dropout: rate,
            },
          },
          x,
          key,
        );
      const parts = (x: Tensor, weight: Tensor, bias: Tensor, A: Tensor, B: Tensor) => {
        const low = linear({ weight: A as Tensor2D }, dropout(x, rate, key));
        const base = linear({ weight: weight as Tensor2D, bias: bias as Tensor1D }, x);
        return add(base, scale(linear({ weight: B as Tensor2D }, low), 1.7));
      };
      const xs = [x, weight, bias, A, B] as const;
      const dy = random('dy', M, 2, out);
      const [found, want] = [fused, parts].map((f) =>
        valueAndGrads(() => sum(mul(f(...xs), dy)) as Scalar, [...xs]),
      );
      const y = tidy(() => parts(...xs));
      await expectClose(
        tidy(() => fused(...xs)),
        await y.data(),
        3e-5,
      );
      for (const i of xs.keys()) await expectClose(found.grads[i], await want.grads[i].data(), 1e-4);
      dispose([found, want, y]);
    }
  });

  it('with DoRA: values in training mode, and gradients with constant norms', async () => {
    const [x, w, b] = [random('x', 3, 4), random<Tensor2D>('w', 5, 4), random<Tensor1D>('b', 5)];
    const [A, B, m] = [random<Tensor2D>('A', 2, 4), random<Tensor2D>('B', 5, 2), random<Tensor1D>('m', 5)];
    const part = (m: Tensor1D) => ({
      lora_A: { weight: A },
      lora_B: { weight: B },
      lora_magnitude_vector: m,
      scaling: 2,
      dropout: 0.3,
    });
    const key = rngKey(3);
    const norm = doraNorm(w, part(m));
    // (Liu et al. 2024), as PEFT does it in training: y = Wx + b + (m/n − 1)·W·drop(x) + (m/n)·s·BA·drop(x).
    const byHand = (x: Tensor, m: Tensor, norm: Tensor) => {
      const dropped = dropout(x, 0.3, key);
      const ratio = div(m, norm);
      const low = scale(linear({ weight: B }, linear({ weight: A }, dropped)), 2);
      const plain = linear({ weight: w }, dropped);
      return add(
        add(linear({ weight: w, bias: b }, x), mul(sub(ratio, tensor([1], [1])), plain)),
        mul(ratio, low),
      );
    };
    const ours = (x: Tensor, m: Tensor) => linear({ weight: w, bias: b, lora: part(m as Tensor1D) }, x, key);
    await expectClose(ours(x, m), [...(await byHand(x, m, norm).data())]);
    expect(await gradientError(ours, [x, m])).toBeLessThan(FD_TOLERANCE);
    const grads = (f: (x: Tensor, m: Tensor) => Tensor) =>
      valueAndGrads(() => sum(mul(f(x, m), random('dy', 3, 5))) as Scalar, [A, B, m]).grads;
    const [found, want] = [grads(ours), grads((x, m) => byHand(x, m, norm))];
    for (const [i, grad] of found.entries()) await expectClose(grad, [...(await want[i].data())]);
  });

  it('errors contain what was expected', () => {
    expect(() => linear({ weight: random<Tensor2D>('w', 4, 5) }, random('x', 2, 6))).toThrow(
      /\[4,5\].*width 5.*\[2,6\]/,
    );
  });
});
