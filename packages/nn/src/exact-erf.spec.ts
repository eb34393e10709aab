import { getBackend, erf as tfErf } from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { onEveryBackend } from '../spec/fixtures';
import { erf } from './exact-erf';
import { dispose, tensor } from './index';

/** Values of Python's math.erf. */
const GOLDEN: [x: number, value: number][] = [
  [0.001, 0.0011283787909692365],
  [0.1, 0.1124629160182849],
  [0.5, 0.5204998778130465],
  [0.84375, 0.7672256612323416],
  [1, 0.8427007929497149],
  [1.3965, 0.9517260912974836],
  [1.999, 0.9953015566513705],
  [2, 0.9953222650189527],
  [2.001, 0.9953428907185247],
  [2.5, 0.999593047982555],
  [3, 0.9999779095030014],
  [4, 0.9999999845827421],
  [5.5, 0.9999999999999927],
];

it.each(GOLDEN)('erf(%s) in double', (x, value) => {
  expect(Math.abs(erf(x) - value)).toBeLessThanOrEqual(3e-16);
  expect(erf(-x)).toBe(-erf(x));
});

it('erf of 0, infinities and NaN', () => {
  expect([0, Infinity, -Infinity, NaN].map(erf)).toEqual([0, 1, -1, NaN]);
});

onEveryBackend('erf', () => {
  it('is right to a rounding of float32', async () => {
    // TensorFlow's own kernel; it has 2.6e-7
    const tolerance = getBackend() === 'tensorflow' ? 3e-7 : 6e-8;
    const xs = Float32Array.from({ length: 4001 }, (_, i) => (i - 2000) / 400);
    const x = tensor(xs, [xs.length]);
    const y = tfErf(x);
    const values = await y.data();
    xs.forEach((at, i) => expect(Math.abs(values[i] - erf(at))).toBeLessThan(tolerance));
    dispose([x, y]);
  });
});
