/** The backend used through tfjs: the same results as `cpu`, and reuse of memory that no reader notices. */
import * as tf from '@tensorflow/tfjs-core';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { loadAddon } from './addon';
import type { NativeBackend } from './backend';
import { sizeClass } from './buffer-pool';
import { registerNativeBackend } from './index';
import { uniform } from '../spec/scalar-reference';

const { why } = loadAddon();

function numbers(shape: number[], seed: number): tf.Tensor {
  const n = tf.util.sizeFromShape(shape);
  return tf.tensor(
    Float32Array.from({ length: n }, (_, i) => 2 * uniform(i, seed, 2) - 1),
    shape,
  );
}

describe.skipIf(why !== undefined)(why ? `native backend (SKIPPED: ${why})` : 'native backend', () => {
  beforeAll(async () => {
    await tf.setBackend('cpu');
    (tf.backend() as unknown as { firstUse: boolean }).firstUse = false; // suppresses a hint that it prints
    const warn = vi.spyOn(console, 'warn');
    const report = await registerNativeBackend();
    expect(report).toMatchObject({
      ok: true,
      instructionSet: expect.any(String),
      threads: expect.any(Number),
    });
    expect(await registerNativeBackend()).toBe(report);
    await tf.setBackend('native');
    tf.zeros([1]).dispose();
    expect(warn).not.toHaveBeenCalled();
  });
  afterEach(() => expect(tf.getBackend()).toBe('native'));

  /** Compares the results of both backends, and checks that no tensor is left. */
  function same(f: () => tf.Tensor, tolerance = 1e-5): void {
    const before = tf.memory().numTensors;
    const found = tf.tidy(f);
    const [values, shape, dtype] = [found.dataSync(), found.shape, found.dtype];
    found.dispose();
    expect(tf.memory().numTensors).toBe(before);
    tf.setBackend('cpu');
    const expected = tf.tidy(f);
    expect({ shape, dtype }).toEqual({ shape: expected.shape, dtype: expected.dtype });
    const expectedValues = expected.dataSync();
    values.forEach((v, i) => expect(Math.abs(v - expectedValues[i]!)).toBeLessThanOrEqual(tolerance));
    expected.dispose();
    tf.setBackend('native');
  }

  it('keeps the values of a tensor that moves to another backend and back', () => {
    const backend = tf.backend() as NativeBackend;
    const before = backend.numDataIds();
    const x = numbers([40, 50], 3);
    const view = tf.reshape(x, [2000]);
    expect(backend.numDataIds()).toBe(before + 1);
    const values = x.dataSync();
    tf.setBackend('cpu');
    const negated = tf.neg(x); // moves x
    expect(backend.numDataIds()).toBe(before);
    expect(backend.data.has(x.dataId)).toBe(false);
    tf.setBackend('native');
    const again = tf.neg(negated);
    expect(again.dataSync()).toEqual(values);
    expect(tf.add(view, 0).dataSync()).toEqual(values); // moves x back
    expect(backend.data.has(x.dataId)).toBe(true);
    for (const tensor of [x, view, negated, again]) tensor.dispose();
    expect(backend.data.has(x.dataId)).toBe(false);
  });

  it('arithmetic with every kind of broadcasting', () => {
    const shapes: [number[], number[]][] = [
      [
        [3, 5],
        [3, 5],
      ],
      [[3, 5], [5]],
      [[5], [3, 5]],
      [[3, 5], []],
      [[], [3, 5]],
      [[], []],
      [
        [3, 1],
        [3, 5],
      ],
      [
        [2, 1, 4, 1],
        [3, 1, 5],
      ],
      [
        [2, 3, 4],
        [2, 1, 4],
      ],
      [[0, 3], [3]],
      [
        [2, 3, 1, 1, 2],
        [1, 4, 1, 2],
      ],
    ];
    for (const [a, b] of shapes)
      for (const f of [tf.add, tf.sub, tf.mul, tf.div, tf.maximum, tf.minimum])
        same(() => f(numbers(a, 1), numbers(b, 2)));
    same(() => tf.add(tf.tensor([1, 2], [2], 'int32'), tf.tensor([3, 4], [2], 'int32')));
  });

  it('slice, concat, transpose, tile', () => {
    same(() => tf.slice(numbers([4, 5, 6], 1), [1, 0, 2], [2, -1, 3]));
    same(() => tf.slice(numbers([7], 1), 2, 4));
    same(() => tf.slice(numbers([4, 5], 1), [1], [2]));
    same(() => tf.slice(numbers([4, 5], 1), [1, 2], [0, 3]));
    same(() => tf.slice(tf.tensor([1, 2, 3], [3], 'int32'), 1, 2));
    for (const axis of [0, 1, 2, -1])
      same(() => tf.concat([numbers([2, 3, 4], 1), numbers([2, 3, 4], 2)], axis));
    same(() => tf.concat([numbers([2, 3], 1), numbers([0, 3], 2), numbers([5, 3], 3)], 0));
    same(() => tf.stack([numbers([3], 1), numbers([3], 2)], 1));
    for (const perm of [
      [1, 0, 2, 3],
      [0, 2, 1, 3],
      [3, 2, 1, 0],
      [0, 1, 2, 3],
      [2, 3, 0, 1],
    ])
      same(() => tf.transpose(numbers([2, 3, 4, 5], 1), perm));
    same(() => tf.transpose(numbers([70, 33], 1), [1, 0]));
    same(() => tf.tile(numbers([1, 3, 2], 1), [4, 1, 2]));
    same(() => tf.concat(tf.split(numbers([4, 6], 1), 3, 1), 0));
  });

  it('sum over any axes', () => {
    for (const axis of [undefined, 0, 1, 2, [0, 1], [1, 2], [0, 2], [0, 1, 2], [-1], []])
      for (const keepDims of [false, true]) same(() => tf.sum(numbers([3, 4, 5], 1), axis, keepDims));
    same(() => tf.sum(numbers([], 1)));
    same(() => tf.mean(numbers([3, 4], 1), 1));
    same(() => tf.sum(tf.tensor([1, 2, 3], [3], 'int32')));
  });

  it('matmul with every transposition and rank', () => {
    for (const tA of [false, true])
      for (const tB of [false, true]) {
        const a = (...batch: number[]) => numbers([...batch, ...(tA ? [7, 5] : [5, 7])], 1);
        const b = (...batch: number[]) => numbers([...batch, ...(tB ? [6, 7] : [7, 6])], 2);
        same(() => tf.matMul(a(), b(), tA, tB));
        same(() => tf.matMul(a(3), b(3), tA, tB));
        same(() => tf.matMul(a(3), b(1), tA, tB));
        same(() => tf.matMul(a(3), b(), tA, tB));
        same(() => tf.matMul(a(2, 3), b(2, 3), tA, tB));
        same(() => tf.matMul(a(2, 1), b(1, 3), tA, tB));
        for (const activation of ['linear', 'relu'] as const)
          same(() =>
            tf.fused.matMul({
              a: a() as tf.Tensor2D,
              b: b() as tf.Tensor2D,
              transposeA: tA,
              transposeB: tB,
              bias: numbers([6], 3),
              activation,
            }),
          );
      }
    expect(() => tf.matMul(numbers([2, 3], 1), numbers([4, 2], 1))).toThrow('inner shapes');
  });

  it('errors of kernels contain the expected shape', () => {
    const [x, weight] = [numbers([2, 3], 1), numbers([4, 5], 1)];
    expect(() => tf.engine().runKernel('NnLinear', { x, weight })).toThrow(
      'NnLinear: expected weight of shape [4,3], found [4,5]',
    );
    tf.dispose([x, weight]);
  });

  it('values that were read do not change when the memory is reused', async () => {
    const make = (value: number) => tf.tidy(() => tf.add(tf.fill([5000], value), 0));
    const first = make(1);
    const sync = first.dataSync();
    const later = await first.data();
    first.dispose();
    const second = make(2);
    expect([sync[0], sync[4999], later[4999]]).toEqual([1, 1, 1]);
    expect(second.dataSync()[0]).toBe(2);
    second.dispose();
  });

  it('a view that a tfjs kernel makes of its input keeps the memory', () => {
    const parent = tf.add(tf.fill([4, 2000], 3), 0);
    const pieces = tf.split(parent, 4, 0); // the cpu kernel makes subarrays
    const row = tf.unstack(parent, 0)[2]!;
    const viewed = tf.reshape(parent, [8000]);
    parent.dispose();
    const others = [1, 2, 3].map((value) => tf.add(tf.fill([8000], value), 0));
    for (const t of [...pieces, row, viewed]) expect(new Set(t.dataSync())).toEqual(new Set([3]));
    tf.dispose([...pieces, row, viewed, ...others]);
  });

  it('repeated steps of equal size allocate no new memory', () => {
    const backend = tf.backend() as NativeBackend;
    const parameter = tf.variable(numbers([300, 200], 1));
    const step = () => {
      tf.tidy(() => {
        const x = tf.matMul(parameter, parameter, true, false);
        parameter.assign(tf.sub(parameter, tf.mul(tf.sum(x), 1e-6)));
      });
    };
    for (let i = 0; i < 3; i++) step();
    const before = { ...tf.memory(), ...backend.memory() };
    for (let i = 0; i < 50; i++) step();
    expect({ ...tf.memory(), ...backend.memory() }).toEqual(before);
    expect(before.unreliable).toBe(false);
    parameter.dispose();
  });

  it('size classes waste at most an eighth above 32 KiB', () => {
    for (let bytes = 4096; bytes < 1e7; bytes = Math.ceil(bytes * 1.037)) {
      const size = sizeClass(bytes);
      expect(size).toBeGreaterThanOrEqual(bytes);
      expect(size - bytes).toBeLessThanOrEqual(Math.max(4096, bytes / 8));
      expect(sizeClass(size)).toBe(size);
    }
  });
});
