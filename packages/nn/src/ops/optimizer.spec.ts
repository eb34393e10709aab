import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { expectClose, onEveryBackend } from '../../spec/fixtures';
import { random } from '../conformance';
import { adamW, clipScale, dispose, globalNorm, memory, mul, scale, tensor, variable, zeros } from '../index';
import type { Scalar, Tensor } from '../index';

interface State {
  param: number[];
  m: number[];
  v: number[];
}
interface Course {
  lr: number;
  betas: [number, number];
  eps: number;
  weight_decay: number;
  param: number[];
  grads: number[][];
  after: Record<number, State>;
}
/** Updates of torch.optim.AdamW (tools/parity/make_adamw_fixture.py). */
const courses = JSON.parse(
  readFileSync(new URL('../../fixtures/adamw.json', import.meta.url), 'utf8'),
) as Course[];

/** Neighbouring float32 numbers differ by 6e-8 to 1.2e-7 of their size. Each update may add one such difference. */
const LAST_PLACE = 1.2e-7;

/** Largest relative difference. */
const farthest = (found: ArrayLike<number>, expected: number[]) =>
  Math.max(...expected.map((x, i) => Math.abs(found[i] - x) / Math.abs(x)));

onEveryBackend('the optimizer', () => {
  it.each(courses)(
    'adamW follows torch to the last digits: lr $lr, betas $betas, eps $eps, weight decay $weight_decay',
    async ({ lr, betas: [beta1, beta2], eps, weight_decay: weightDecay, param, grads, after }) => {
      const n = [param.length];
      const state = { param: variable(tensor(param, n)), m: variable(zeros(n)), v: variable(zeros(n)) };
      const one = tensor([1], []) as Scalar;
      for (const [i, values] of grads.entries()) {
        const grad = tensor(values, n);
        adamW([{ ...state, grad, weightDecay }], one, { lr, beta1, beta2, eps, step: i + 1 });
        dispose(grad);
        for (const [name, expected] of Object.entries(after[i + 1] ?? {}))
          expect(
            farthest(await state[name as keyof State].data(), expected),
            `${name}, step ${i + 1}`,
          ).toBeLessThan((i + 1) * LAST_PLACE);
      }
      dispose([...Object.values(state), one]);
    },
  );

  it('the second moment is 0.00100000005 at beta2 0.999 and a gradient of 1, as in torch', async () => {
    const [param, m, v] = [1, 0, 0].map((x) => variable(tensor([x], [1])));
    const [grad, one] = [tensor([1], [1]), tensor([1], []) as Scalar];
    const o = { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 1 };
    adamW([{ param, grad, m, v, weightDecay: 0 }], one, o);
    expect((await v.data())[0]).toBe(Math.fround(0.00100000005));
    expect((await m.data())[0]).toBe(Math.fround(0.1));
    dispose([param, m, v, grad, one]);
  });

  it('globalNorm of ten million numbers is right to 1e-6', async () => {
    const g = tensor(new Float32Array(1e7).fill(0.1), [1e7]);
    const part = tensor(new Float32Array(1e4).fill(0.1), [1e4]);
    const few = globalNorm([g]);
    const many = globalNorm(Array<Tensor>(300).fill(part));
    const near = async (norm: Scalar, count: number) =>
      expect(Math.abs((await norm.data())[0] / (Math.fround(0.1) * Math.sqrt(count)) - 1)).toBeLessThan(1e-6);
    await near(few, 1e7);
    await near(many, 300 * 1e4);
    dispose([g, part, few, many]);
  });

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
