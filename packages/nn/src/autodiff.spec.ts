import * as tf from '@tensorflow/tfjs-core';
import { expect, it, vi } from 'vitest';
import { expectClose, onEveryBackend } from '../spec/fixtures';
import { random } from './conformance';
import {
  checkpoint,
  cpuBackend,
  dispose,
  gelu,
  linear,
  memory,
  mul,
  recordedBytes,
  relu,
  scale,
  startBackend,
  sum,
  tidy,
  valueAndGrads,
  variable,
} from './index';
import type { Scalar, Tensor, Tensor2D } from './index';

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

  it('makes no zeros for outputs that only the backward pass reads', () => {
    const x = random('x', 40, 30);
    const made = vi.spyOn(tf.engine(), 'makeTensor');
    const { value, grads } = valueAndGrads(() => sum(relu(x)) as Scalar, [x]);
    expect(made.mock.calls.filter(([, , dtype]) => dtype === 'bool')).toEqual([]);
    made.mockRestore();
    dispose([value, ...grads, x]);
  });

  it('with a frozen weight, the tape keeps no input, and the gradients are the same', async () => {
    const [depth, rows, width] = [4, 8, 16];
    const layers = Array.from({ length: depth }, (_, i) => ({
      weight: random<Tensor2D>(`f${i}`, width, width),
    }));
    const x = random<Tensor2D>('x', rows, width);
    const run = (xs: Tensor[]) => {
      let kept = 0;
      const before = memory().numBytes;
      const { value, grads } = valueAndGrads(() => {
        const y = layers.reduce((h, p) => tidy(() => relu(linear(p, scale(h, 2)))), x);
        kept = memory().numBytes - before;
        return sum(y) as Scalar;
      }, xs);
      dispose([value, ...grads.slice(1)]);
      return { kept, dx: grads[0] };
    };
    const [frozen, trained] = [run([x]), run([x, ...layers.map((p) => p.weight)])];
    expect(trained.kept - frozen.kept).toBe(depth * rows * width * 4);
    await expectClose(frozen.dx, await trained.dx.data(), 1e-12);
    dispose([x, layers, frozen.dx, trained.dx]);
  });

  it('valueAndGrads: an unused input gets zeros, and all memory is freed', async () => {
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

it('counts what the tape keeps: inputs of products of two trained tensors, once, and not those that others hold', async () => {
  await startBackend(cpuBackend); // wasm copies what it keeps
  const [x, w] = [variable(random('x', 8, 16)), variable(random('w', 8, 16))];
  const kept: number[] = [];
  const f = () => {
    const y = mul(x, w); // reads x and w backwards
    const z = mul(y, y); // reads y, twice
    kept.push(recordedBytes([]), recordedBytes([x, w]));
    return sum(z) as Scalar;
  };
  dispose(valueAndGrads(f, [x, w]));
  expect(kept).toEqual([3 * 8 * 16 * 4, 8 * 16 * 4]);
  expect(recordedBytes([])).toBe(0);
  dispose([x, w]);
});
