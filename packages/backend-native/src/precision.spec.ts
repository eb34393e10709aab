/** Precision and packed weights, used through tfjs: never stale, and counted in memory(). */
import * as tf from '@tensorflow/tfjs-core';
import { inFloat32, runKernel } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { NativeBackend } from './backend';
import * as reference from '../spec/scalar-reference';
import { addon, levels, loaded, numbers } from '../spec/fixtures';

const [M, N, K] = [20, 96, 64];
const bytesPacked = () => (tf.backend() as NativeBackend).memory().numBytesPacked;
const linear = (x: tf.Tensor, weight: tf.Tensor): tf.Tensor => runKernel('NnLinear', { x, weight }, {});
const gradInput = (dy: tf.Tensor, weight: tf.Tensor): tf.Tensor =>
  runKernel('NnLinearGradInput', { dy, weight }, {});

const title = loaded.addon ? 'precision' : `precision (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(title, () => {
  const has = levels.includes('avx512bf16');
  const x = numbers(M * K, 1);
  const w = numbers(N * K, 2);
  let input: tf.Tensor;

  beforeAll(async () => {
    await useBackend('native');
    input = tf.tensor(x, [M, K]);
  });
  beforeEach(async () => {
    await useBackend('native');
    expect(bytesPacked()).toBe(0);
  });
  afterAll(async () => {
    await useBackend('native');
    input.dispose();
  });

  /** The largest difference from the scalar matmul. */
  function error(found: tf.Tensor, weight: Float32Array, rounded: boolean): number {
    const round = rounded ? reference.toBFloat16 : (values: Float32Array) => values;
    const expected = reference.matMul(round(x), false, round(weight), true, M, N, K);
    const values = found.dataSync();
    found.dispose();
    return Math.max(...expected.map((v, i) => Math.abs(v - values[i]!)));
  }

  it('auto is bfloat16 if the processor supports it', async () => {
    const { precision } = await useBackend('native', { precision: 'auto' });
    expect(precision).toBe(has ? 'bfloat16' : 'float32');
    const weight = tf.tensor(w, [N, K]);
    expect(error(linear(input, weight), w, has)).toBeLessThan(1e-5);
    weight.dispose();
  });

  it('inFloat32 does not round, and restores the precision afterwards, also after an error', async () => {
    await useBackend('native', { precision: 'auto' });
    const weight = tf.tensor(w, [N, K]);
    expect(
      error(
        inFloat32(() => linear(input, weight)),
        w,
        false,
      ),
    ).toBeLessThan(1e-5);
    const fails = () => {
      throw new Error('inside');
    };
    expect(() => inFloat32(fails)).toThrow('inside');
    expect(error(linear(input, weight), w, has)).toBeLessThan(1e-5);
    weight.dispose();
  });

  it('two concurrent computations keep their own precision', async () => {
    await useBackend('native', { precision: 'auto' });
    const weight = tf.tensor(w, [N, K]);
    const results = { exact: [] as number[], rounded: [] as number[] };
    const exact = async () => {
      for (let i = 0; i < 4; i++) {
        const y = inFloat32(() => linear(input, weight));
        await y.data();
        results.exact.push(error(y, w, false));
      }
    };
    const rounded = async () => {
      for (let i = 0; i < 4; i++) {
        const y = linear(input, weight);
        await y.data();
        results.rounded.push(error(y, w, has));
      }
    };
    await Promise.all([exact(), rounded(), exact()]);
    expect(Math.max(...results.exact, ...results.rounded)).toBeLessThan(1e-5);
    expect(() => inFloat32(() => Promise.resolve(1))).toThrow('inFloat32: expected a function without await');
    weight.dispose();
  });

  it.skipIf(!has)('two backends of one process keep their own precision', () => {
    const [one, two] = [new NativeBackend(addon), new NativeBackend(addon)];
    one.setPrecision('bfloat16');
    const product = (backend: NativeBackend) => {
      const info = (values: Float32Array, shape: number[]) =>
        backend.makeTensorInfo(shape, 'float32', values);
      return backend.floats(backend.timesWeight(info(x, [M, K]), info(w, [N, K]), true));
    };
    expect(product(one)).not.toEqual(product(two));
  });

  for (const precision of has ? (['float32', 'bfloat16'] as const) : (['float32'] as const)) {
    it(`${precision}: a weight is packed at its second use, per direction, and freed with its data`, async () => {
      await useBackend('native', { precision });
      const rounded = precision === 'bfloat16';
      const weight = tf.tensor(w, [N, K]);
      const seen = [0, 1, 2].map(() => {
        const y = linear(input, weight);
        const values = y.dataSync();
        expect(error(y, w, rounded)).toBeLessThan(1e-5);
        return { values, bytes: bytesPacked() };
      });
      const once = addon.packedLength(N, K, precision) * 4;
      expect(seen.map(({ bytes }) => bytes)).toEqual([0, once, once]);
      expect(seen[1]!.values).toEqual(seen[0]!.values);
      expect(seen[2]!.values).toEqual(seen[0]!.values);
      const dy = tf.ones([M, N]);
      for (let i = 0; i < 2; i++) gradInput(dy, weight).dispose();
      expect(bytesPacked()).toBe(once + addon.packedLength(K, N, precision) * 4);
      const view = tf.reshape(weight, [K, N]); // shares the data
      weight.dispose();
      expect(bytesPacked()).toBeGreaterThan(0);
      tf.dispose([view, dy]);
      expect(bytesPacked()).toBe(0);
    });

    it(`${precision}: a variable that is assigned between calls is never stale`, async () => {
      await useBackend('native', { precision });
      const variable = tf.variable(tf.tensor(w, [N, K]));
      for (let round = 0; round < 4; round++) {
        const values = numbers(N * K, 10 + round);
        tf.tidy(() => variable.assign(tf.tensor(values, [N, K])));
        expect(bytesPacked()).toBe(0);
        for (let use = 0; use < 3; use++)
          expect(error(linear(input, variable), values, precision === 'bfloat16')).toBeLessThan(1e-5);
        expect(bytesPacked()).toBeGreaterThan(0);
      }
      variable.dispose();
    });
  }

  it('float32 packs no weight for many rows, or beyond the limit', () => {
    const tall = tf.zeros([300, K]);
    const weight = tf.tensor(w, [N, K]);
    for (let i = 0; i < 3; i++) linear(tall, weight).dispose();
    expect(bytesPacked()).toBe(0);
    tf.dispose([tall, weight]);
    const small = new NativeBackend(addon, 1000);
    const info = (values: Float32Array, shape: number[]) => small.makeTensorInfo(shape, 'float32', values);
    const held = info(w, [N, K]);
    for (let i = 0; i < 3; i++) small.timesWeight(info(x, [M, K]), held, true, undefined);
    expect(small.memory().numBytesPacked).toBe(0);
  });

  it.skipIf(!has)('changing the precision frees the packed weights of the other one', async () => {
    const weight = tf.tensor(w, [N, K]);
    for (let i = 0; i < 2; i++) linear(input, weight).dispose();
    await useBackend('native', { precision: 'bfloat16' });
    expect(bytesPacked()).toBe(0);
    for (let i = 0; i < 3; i++) expect(error(linear(input, weight), w, true)).toBeLessThan(1e-5);
    await useBackend('native');
    expect(bytesPacked()).toBe(0);
    for (let i = 0; i < 3; i++) expect(error(linear(input, weight), w, false)).toBeLessThan(1e-5);
    weight.dispose();
  });

  it('without the instructions, bfloat16 is refused with their name', async () => {
    addon.setInstructionSet('portable');
    await expect(useBackend('native', { precision: 'bfloat16' })).rejects.toThrow(
      'precision: bfloat16 needs a processor with AVX512-BF16',
    );
    addon.setInstructionSet(levels.at(-1)!);
    expect(bytesPacked()).toBe(0);
  });
});
