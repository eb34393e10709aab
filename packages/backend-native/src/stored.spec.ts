/** Matrices that stay in their file: the same numbers as ordinary tensors, and nothing left behind. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { loadAddon, type NativeAddon, type StoredDType } from './addon';
import type { NativeBackend } from './backend';
import { registerNativeBackend } from './index';
import { numbers } from './spec-fixtures';

const { why } = loadAddon();
const bf16 = loadAddon().addon?.instructionSet() === 'avx512bf16';

/** Bits of bfloat16, by truncation: what the file says is what counts here. */
const bfloat = (x: number) => new Uint32Array(Float32Array.of(x).buffer)[0]! >>> 16;

/** A half-precision number's value, by the definition of the format. */
function halfValue(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

/** Bytes of a matrix in a type, and the values that they stand for. */
function encoded(
  dtype: StoredDType,
  count: number,
  seed: number,
): { bytes: Uint8Array; values: Float32Array } {
  const wish = numbers(count, seed);
  if (dtype === 'F32') return { bytes: new Uint8Array(wish.buffer.slice(0)), values: wish };
  const bits = Uint16Array.from(wish, dtype === 'BF16' ? bfloat : (x) => 0x2c00 | (bfloat(x) & 0x83ff));
  const words = Uint32Array.from(bits, (b) => b << 16);
  const values =
    dtype === 'BF16' ? new Float32Array(words.buffer) : Float32Array.from(bits, (b) => halfValue(b));
  return { bytes: new Uint8Array(bits.buffer), values };
}

describe.skipIf(why !== undefined)(why ? `stored matrices (SKIPPED: ${why})` : 'stored matrices', () => {
  let dir: string;
  let backend: NativeBackend;
  let addon: NativeAddon;
  let before: tf.MemoryInfo;
  let files = 0;

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'stored-'));
    await registerNativeBackend();
    await tf.setBackend('native');
    backend = tf.backend() as NativeBackend;
    ({ addon } = backend);
  });
  afterAll(() => rmSync(dir, { recursive: true }));
  beforeEach(() => (before = tf.memory()));
  afterEach(() => {
    backend.setPrecision('float32');
    const { numTensors, numDataBuffers } = tf.memory();
    expect([numTensors, numDataBuffers]).toEqual([before.numTensors, before.numDataBuffers]);
    expect([backend.memory().numBytesStored, addon.mappedBytes(), addon.copiedBytes()]).toEqual([0, 0, 0]);
  });

  function fileOf(bytes: Uint8Array, begin: number): string {
    const file = join(dir, `${files++}.safetensors`);
    writeFileSync(file, Buffer.concat([Buffer.alloc(begin, 7), bytes, Buffer.alloc(5, 9)]));
    return file;
  }

  /** A stored matrix and the ordinary tensor with its values. */
  function pair(dtype: StoredDType, rows: number, columns: number, begin = 16): [tf.Tensor, tf.Tensor] {
    const { bytes, values } = encoded(dtype, rows * columns, rows + columns);
    const source = { file: fileOf(bytes, begin), begin, dtype, shape: [rows, columns] };
    const stored = tf.engine().makeTensorFromTensorInfo(backend.store(source, 1)!, backend);
    return [stored, tf.tensor(values, [rows, columns])];
  }

  const bitsOf = (x: tf.Tensor) => {
    const { buffer, byteOffset, byteLength } = x.dataSync<'float32'>();
    return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength).toString('hex');
  };
  const kernel = (name: string, inputs: Record<string, tf.Tensor>, attrs: tf.NamedAttrMap = {}) =>
    tf.engine().runKernel(name, inputs, attrs) as tf.Tensor;

  describe.each(['F32', 'BF16', 'F16'] as const)('%s', (dtype) => {
    it('shows its exact values to every kind of access', async () => {
      for (const begin of [16, 17, 18, 19]) {
        const [stored, plain] = pair(dtype, 37, 29, begin);
        expect(bitsOf(stored)).toBe(bitsOf(plain));
        expect(await stored.data()).toEqual(await plain.data());
        for (const op of [
          (x: tf.Tensor) => tf.abs(x), // tfjs's own kernel
          (x: tf.Tensor) => tf.sum(x, 0), // C++
          (x: tf.Tensor) => tf.transpose(x),
          (x: tf.Tensor) => tf.add(x, 1),
          (x: tf.Tensor) => tf.slice(x, [3, 1], [5, 7]),
        ])
          tf.tidy(() => {
            expect(bitsOf(op(stored))).toBe(bitsOf(op(plain)));
          });
        tf.dispose([stored, plain]);
      }
    });

    it('gives the products of an ordinary tensor in every precision', () => {
      const [rows, columns] = [70, 83];
      const [weight, plain] = pair(dtype, rows, columns);
      const bias = tf.tensor(numbers(rows, 3));
      for (const precision of bf16 ? (['float32', 'bfloat16'] as const) : (['float32'] as const)) {
        backend.setPrecision(precision);
        for (const M of [1, 4, 5, 33, 70])
          tf.tidy(() => {
            const x = tf.tensor(numbers(M * columns, M), [M, columns]);
            const dy = tf.tensor(numbers(M * rows, M), [M, rows]);
            for (const [name, inputs, attrs] of [
              ['NnLinear', { x, bias }, {}],
              ['NnLinear', { x, bias, residual: dy }, { activation: 'gelu' }],
              ['NnLinearGradInput', { dy }, {}],
            ] as const) {
              const [got, want] = [weight, plain].map((w) => kernel(name, { ...inputs, weight: w }, attrs));
              expect(largestError(got!, want!), `${name} ${precision} M=${M}`).toBeLessThan(1e-6);
            }
          });
      }
      tf.dispose([weight, plain, bias]);
    });

    it('gives the loss of logits that are never held, and its gradient', () => {
      const [V, D] = [1100, 12]; // more than one block of columns
      const [weight, plain] = pair(dtype, V, D);
      for (const precision of bf16 ? (['float32', 'bfloat16'] as const) : (['float32'] as const)) {
        backend.setPrecision(precision);
        tf.tidy(() => {
          const x = tf.tensor(numbers(2100 * D, 1), [2100, D]);
          const labels = tf.tensor1d(
            Array.from({ length: 2100 }, (_, i) => ((i * 37) % 1101) - 1),
            'int32',
          );
          const attrs = { labelSmoothing: 0.1 };
          const run = (name: string, inputs: Record<string, tf.Tensor>) =>
            [tf.engine().runKernel(name, inputs, attrs)].flat() as tf.Tensor[];
          const results = [weight, plain].map((w) => {
            const [loss, lse] = run('NnLinearCrossEntropy', { x, weight: w, labels }) as [
              tf.Tensor,
              tf.Tensor,
            ];
            const given = { x, weight: w, labels, lse, dloss: tf.scalar(2) };
            const [dx] = run('NnLinearCrossEntropyGradInput', given);
            return [loss, lse, dx!];
          });
          results[0]!.forEach((got, i) => expect(largestError(got, results[1]![i]!)).toBeLessThan(1e-5));
        });
      }
      tf.dispose([weight, plain]);
    });

    it('gathers rows', () => {
      const [table, plain] = pair(dtype, 50, 21);
      tf.tidy(() => {
        const indices = tf.tensor1d([49, 0, 7, 7, 30], 'int32');
        const [got, want] = [table, plain].map((x) => kernel('NnGatherRows', { x, indices }));
        expect(bitsOf(got!)).toBe(bitsOf(want!));
        const outside = tf.tensor1d([0, 50], 'int32');
        expect(() => kernel('NnGatherRows', { x: table, indices: outside })).toThrow(
          /indices\[1\]: expected 0 … 49, found 50/,
        );
        // The same data seen in another shape is no longer the stored matrix.
        const transposed = [table, plain].map((x) =>
          kernel('NnGatherRows', { x: tf.reshape(x, [25, 42]), indices: tf.tensor1d([24], 'int32') }),
        );
        expect(bitsOf(transposed[0]!)).toBe(bitsOf(transposed[1]!));
      });
      tf.dispose([table, plain]);
    });
  });

  function largestError(got: tf.Tensor, want: tf.Tensor): number {
    expect(got.shape).toEqual(want.shape);
    const scale = Math.max(...want.dataSync().map(Math.abs));
    const w = want.dataSync();
    return Math.max(...got.dataSync().map((x, i) => Math.abs(x - w[i]!))) / scale;
  }

  it('widens every half-precision number exactly', () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const source = {
      file: fileOf(new Uint8Array(bits.buffer), 8),
      begin: 8,
      dtype: 'F16',
      shape: [256, 256],
    };
    const stored = tf.engine().makeTensorFromTensorInfo(backend.store(source, 1)!, backend);
    const values = stored.dataSync();
    const wrong = bits.filter((b) => !Object.is(values[b], halfValue(b)));
    expect([...wrong]).toEqual([]);
    stored.dispose();
  });

  it.skipIf(!bf16)('rounds other types once for bfloat16 products, and keeps the exact values', () => {
    backend.setPrecision('bfloat16');
    const [weight, plain] = pair('F32', 64, 50);
    expect(backend.memory().numBytesStored).toBe(64 * 50 * 2);
    expect(addon.copiedBytes()).toBe(64 * 50 * 2);
    expect(bitsOf(weight)).toBe(bitsOf(plain));
    const x = tf.tensor(numbers(9 * 50, 1), [9, 50]);
    tf.tidy(() => {
      const [got, want] = [weight, plain].map((w) => kernel('NnLinear', { x, weight: w }));
      expect(largestError(got!, want!)).toBeLessThan(1e-6);
      backend.setPrecision('float32'); // the copy is not used then
      const [exact, expected] = [weight, plain].map((w) => kernel('NnLinear', { x, weight: w }));
      expect(largestError(exact!, expected!)).toBeLessThan(1e-6);
      expect(largestError(exact!, got!)).toBeGreaterThan(1e-5);
    });
    tf.dispose([weight, plain, x]);
  });

  it('counts honestly, and lets go with the last tensor that shows the matrix', () => {
    const [stored, plain] = pair('BF16', 40, 30);
    plain.dispose();
    const [own, counted] = [backend.memory(), tf.memory()];
    expect([own.numBytesStored, own.numBytesNotHeld]).toEqual([2400, 4800]);
    expect(counted.numBytes - before.numBytes).toBe(4800);
    expect(addon.mappedBytes()).toBe(16 + 2400 + 5);
    const again = tf.clone(stored);
    stored.dispose();
    expect(backend.memory().numBytesStored).toBe(2400);
    expect(again.dataSync()).toHaveLength(1200);
    again.dispose();
  });

  it('maps a file once for all its matrices', () => {
    const { bytes } = encoded('F32', 60, 1);
    const file = fileOf(bytes, 8);
    const make = (begin: number) =>
      tf
        .engine()
        .makeTensorFromTensorInfo(backend.store({ file, begin, dtype: 'F32', shape: [5, 6] }, 1)!, backend);
    const both = [make(8), make(8 + 120)];
    expect(addon.mappedBytes()).toBe(8 + 240 + 5);
    tf.dispose(both);
  });

  it('moves to another backend as float32', async () => {
    const [stored, plain] = pair('F16', 8, 9);
    const want = bitsOf(plain);
    await import('@tensorflow/tfjs-backend-cpu');
    (tf.findBackend('cpu') as unknown as { firstUse: boolean }).firstUse = false;
    await tf.setBackend('cpu');
    expect(bitsOf(tf.tidy(() => tf.add(stored, 0)))).toBe(want);
    tf.dispose([stored, plain]);
    await tf.setBackend('native');
    before = tf.memory();
  });

  it('is not offered for what cannot or need not be stored', () => {
    const file = fileOf(new Uint8Array(4000), 0);
    const store = (dtype: string, shape: number[], atLeast?: number) =>
      backend.store({ file, begin: 0, dtype, shape }, atLeast);
    expect(store('F32', [10, 10])).toBeUndefined(); // small
    expect(store('F32', [100], 1)).toBeUndefined();
    expect(store('F32', [2, 5, 5], 1)).toBeUndefined();
    expect(store('F64', [10, 10], 1)).toBeUndefined();
    expect(store('I32', [10, 10], 1)).toBeUndefined();
    expect(store('F32', [0, 10], 1)).toBeUndefined();
    expect(store('F32', [10, 10], Infinity)).toBeUndefined();
  });

  it('refuses files that do not hold the matrix', () => {
    const file = fileOf(new Uint8Array(4000), 0);
    const store = (begin: number, shape: number[], path = file) =>
      backend.store({ file: path, begin, dtype: 'F32', shape }, 1);
    expect(() => store(6, [100, 10])).toThrow(
      /expected 100 x 10 elements of 4 bytes from byte 6 on, the file has 4005/,
    );
    expect(() => store(5000, [1, 1])).toThrow(/from byte 5000 on, the file has 4005 bytes \(truncated\?\)/);
    expect(() => store(0, [2 ** 31, 2 ** 31])).toThrow(/the file has 4005/);
    expect(() => store(-1, [1, 1])).toThrow(/begin: expected a whole number from 0/);
    truncateSync(file, 100);
    expect(() => store(0, [10, 10])).toThrow(/the file has 100 bytes/);
    truncateSync(file, 0);
    expect(() => store(0, [1, 1])).toThrow(/the file is empty/);
    expect(() => store(0, [1, 1], dir)).toThrow(/expected a regular file/);
    expect(() => store(0, [1, 1], join(dir, 'x'.repeat(100)))).toThrow(
      /x{100}: cannot be opened: No such file/,
    );
  });

  it('cannot be used after its release, nor be mistaken', () => {
    const { bytes } = encoded('F32', 4, 1);
    const handle = addon.storeMatrix(fileOf(bytes, 0), 0, 'F32', 2, 2, false);
    const y = new Float32Array(4);
    addon.storedFloats(handle, y);
    addon.releaseStored(handle);
    expect(() => addon.storedFloats(handle, y)).toThrow(/has been released/);
    expect(() => addon.storedFloats({} as never, y)).toThrow(/stored: expected a handle from this addon/);
    expect(() => addon.storedFloats(7 as never, y)).toThrow(/stored: expected a handle/);
    addon.releaseStored(handle); // once more does nothing
  });
});
