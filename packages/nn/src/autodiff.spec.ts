import { expect, it } from 'vitest';
import { checkpoint, dispose, gelu, linear, memory, mul, sum, valueAndGrads, variable } from './index';
import type { Scalar, Tensor, Tensor2D } from './index';
import { expectClose, onEveryBackend, random } from './spec-fixtures';

onEveryBackend('gradients', () => {
  it('checkpoint: same value and gradients as without, for x and for Variables inside, and no leak', async () => {
    const layers = Array.from({ length: 3 }, (_, i) => ({
      weight: variable(random<Tensor2D>(`w${i}`, 4, 4)) as unknown as Tensor2D,
    }));
    const x = random('x', 2, 4);
    const block = (p: { weight: Tensor2D }) => (x: Tensor) => gelu(linear(p, x));
    const run = (wrap: boolean) => () =>
      sum(layers.reduce((h, p) => (wrap ? checkpoint(block(p), [h], p) : block(p)(h)), x)) as Scalar;
    const xs = [x, ...layers.map((p) => p.weight)];
    const [plain, before] = [valueAndGrads(run(false), xs), memory().numTensors];
    const wrapped = valueAndGrads(run(true), xs);
    expect(memory().numTensors - before).toBe(1 + xs.length);
    await expectClose(wrapped.value, await plain.value.data(), 1e-6);
    for (const [i, grad] of wrapped.grads.entries())
      await expectClose(grad, await plain.grads[i].data(), 1e-6);
    dispose([plain, wrapped, layers]);
  });

  it('valueAndGrads: an unused input gets zeros, and memory returns to what it was', async () => {
    const [a, b] = [random('a', 3), random('b', 3)];
    const before = memory().numTensors;
    const { value, grads } = valueAndGrads(() => sum(mul(a, a)) as Scalar, [a, b]);
    await expectClose(
      grads[0],
      [...(await a.data())].map((x) => 2 * x),
    );
    await expectClose(grads[1], [0, 0, 0]);
    dispose([value, grads]);
    expect(memory().numTensors).toBe(before);
  });
});
