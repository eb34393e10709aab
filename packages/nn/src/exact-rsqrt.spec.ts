import { getBackend, rsqrt } from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { onEveryBackend } from '../spec/fixtures';
import { dispose, tensor } from './index';

onEveryBackend('rsqrt', () => {
  it('is rounded once', async () => {
    const tolerance = getBackend() === 'tensorflow' ? 2.4e-7 : 0; // TensorFlow's own kernel
    const xs = Float32Array.from({ length: 4001 }, (_, i) => 1e-3 * 1.004 ** i);
    const x = tensor(xs, [xs.length]);
    const y = rsqrt(x);
    const values = await y.data();
    const errors = xs.map((at, i) => Math.abs(values[i] / Math.fround(1 / Math.sqrt(at)) - 1));
    expect(errors.reduce((most, error) => Math.max(most, error))).toBeLessThanOrEqual(tolerance);
    dispose([x, y]);
  });
});
