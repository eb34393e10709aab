import { expect, it } from 'vitest';
import { expectClose, onEveryBackend } from '../../spec/fixtures';
import { random } from '../conformance';
import { adamW, clipScale, dispose, globalNorm, memory, mul, scale, tensor, variable } from '../index';
import type { Scalar } from '../index';

onEveryBackend('the optimizer', () => {
  it('adamW follows the textbook update; clipping scales to the norm; nothing leaks', async () => {
    const p = variable(tensor([1, -2], [2]));
    const [m, v] = [variable(tensor([0, 0], [2])), variable(tensor([0, 0], [2]))];
    const grad = tensor([3, 4], [2]);
    const norm = globalNorm([grad]);
    await expectClose(norm, [5]);
    const factor = clipScale(norm, 1);
    await expectClose(factor, [1 / (5 + 1e-6)]);
    const before = memory().numTensors;
    const o = { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8 };
    let [pw, mw, vw] = [
      [1, -2],
      [0, 0],
      [0, 0],
    ];
    for (let step = 1; step <= 5; step++) {
      adamW([{ param: p, grad, m, v, weightDecay: 0.01 }], factor, { ...o, step });
      const g = [0.6, 0.8];
      mw = mw.map((x, i) => 0.9 * x + 0.1 * g[i]);
      vw = vw.map((x, i) => 0.99 * x + 0.01 * g[i] ** 2);
      pw = pw.map(
        (x, i) =>
          x * (1 - 0.1 * 0.01) -
          (0.1 * (mw[i] / (1 - 0.9 ** step))) / (Math.sqrt(vw[i] / (1 - 0.99 ** step)) + 1e-8),
      );
    }
    expect(memory().numTensors).toBe(before);
    await expectClose(p, pw);
    dispose([p, m, v]);
  });

  it('adamW and globalNorm of a list give the same bits as one tensor at a time', async () => {
    const sizes = [[1], [3, 5], [65], [2, 33, 7], [16, 40], [31]];
    const make = () =>
      sizes.map((shape, i) => ({
        param: variable(random(`p${i}`, ...shape)),
        grad: random(`g${i}`, ...shape),
        m: variable(scale(random(`m${i}`, ...shape), 0.1)),
        v: variable(mul(random(`v${i}`, ...shape), random(`v${i}`, ...shape))),
        weightDecay: i % 2 ? 0.1 : 0,
      }));
    const o = { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, step: 3 };
    const [together, apart] = [make(), make()];
    const factor = tensor([0.7], []) as Scalar;
    adamW(together, factor, o);
    for (const slot of apart) adamW([slot], factor, o);
    for (const [i, slot] of together.entries())
      for (const part of ['param', 'm', 'v'] as const)
        expect(await slot[part].data(), `${part} ${i}`).toEqual(await apart[i][part].data());
    const grads = together.map(({ grad }) => grad);
    const values = (await Promise.all(grads.map((g) => g.data()))) as Float32Array[];
    const squares = values.flatMap((g) => [...g]).reduce((a, g) => a + g * g, 0);
    await expectClose(globalNorm(grads), [Math.sqrt(squares)]);
    dispose([together, apart, factor]);
  });
});
