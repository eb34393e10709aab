/** Stored weights have the same values as ordinary tensors, and all memory is freed. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Encoding, Span, StoredWeight } from '@blip2/nn';
import { loadAddon } from './addon';
import type { NativeAddon } from './addon';
import type { NativeBackend } from './backend';
import { registerNativeBackend } from './index';
import { numbers } from '../spec/fixtures';

type Kind = Extract<Encoding['kind'], 'F32' | 'F16' | 'BF16'>;
const { why } = loadAddon();
const bf16 = loadAddon().addon?.instructionSet() === 'avx512bf16';

/** The bits of bfloat16, by truncation: these specs need exact values, not rounding. */
const bfloat = (x: number) => new Uint32Array(Float32Array.of(x).buffer)[0]! >>> 16;

/** The value of a half-precision number, by the definition of the format. */
function halfValue(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

/** Bytes of a weight in an encoding, and its exact values. */
function encoded(kind: Kind, count: number, seed: number): { bytes: Uint8Array; values: Float32Array } {
  const original = numbers(count, seed);
  if (kind === 'F32') return { bytes: new Uint8Array(original.buffer.slice(0)), values: original };
  const bits = Uint16Array.from(original, kind === 'BF16' ? bfloat : (x) => 0x2c00 | (bfloat(x) & 0x83ff));
  const words = Uint32Array.from(bits, (b) => b << 16);
  const values =
    kind === 'BF16' ? new Float32Array(words.buffer) : Float32Array.from(bits, (b) => halfValue(b));
  return { bytes: new Uint8Array(bits.buffer), values };
}

describe.skipIf(why !== undefined)(why ? `stored weights (SKIPPED: ${why})` : 'stored weights', () => {
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

  const tensorOf = (shape: StoredWeight['shape'], kind: Kind, data: Span) =>
    tf.engine().makeTensorFromTensorInfo(backend.store({ shape, data, encoding: { kind } }, 1)!, backend);

  /** A stored weight (in a file at `begin`, or in memory) and an ordinary tensor with the same values. */
  function pair(kind: Kind, rows: number, columns: number, begin?: number): [tf.Tensor, tf.Tensor] {
    const { bytes, values } = encoded(kind, rows * columns, rows + columns);
    const data = begin === undefined ? { bytes } : { file: fileOf(bytes, begin), begin, bytes: bytes.length };
    const stored = tensorOf([rows, columns], kind, data);
    if (begin === undefined) bytes.fill(255); // the array may be reused
    return [stored, tf.tensor(values, [rows, columns])];
  }

  const bitsOf = (x: tf.Tensor) => {
    const { buffer, byteOffset, byteLength } = x.dataSync<'float32'>();
    return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength).toString('hex');
  };
  const kernel = (name: string, inputs: Record<string, tf.Tensor>, attrs: tf.NamedAttrMap = {}) =>
    tf.engine().runKernel(name, inputs, attrs) as tf.Tensor;

  describe.each(['F32', 'BF16', 'F16'] as const)('%s', (kind) => {
    it('has its exact values for every kind of access', async () => {
      for (const begin of [16, 17, 18, 19, undefined]) {
        const [stored, plain] = pair(kind, 37, 29, begin);
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

    it.each([
      ['in a file', 16],
      ['in memory', undefined],
    ] as const)('%s: matmul as with an ordinary tensor, in every precision', (_, begin) => {
      const [rows, columns] = [70, 83];
      const [weight, plain] = pair(kind, rows, columns, begin);
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
              const [found, expected] = [weight, plain].map((w) =>
                kernel(name, { ...inputs, weight: w }, attrs),
              );
              expect(largestError(found!, expected!), `${name} ${precision} M=${M}`).toBeLessThan(1e-6);
            }
          });
      }
      tf.dispose([weight, plain, bias]);
    });

    it('fused loss and its gradient', () => {
      const [V, D] = [1100, 12]; // more than one block of columns
      const [weight, plain] = pair(kind, V, D, 16);
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
          results[0]!.forEach((found, i) => expect(largestError(found, results[1]![i]!)).toBeLessThan(1e-5));
        });
      }
      tf.dispose([weight, plain]);
    });

    it('gathers rows', () => {
      const [table, plain] = pair(kind, 50, 21, 16);
      tf.tidy(() => {
        const indices = tf.tensor1d([49, 0, 7, 7, 30], 'int32');
        const [found, expected] = [table, plain].map((x) => kernel('NnGatherRows', { x, indices }));
        expect(bitsOf(found!)).toBe(bitsOf(expected!));
        const outside = tf.tensor1d([0, 50], 'int32');
        expect(() => kernel('NnGatherRows', { x: table, indices: outside })).toThrow(
          /indices\[1\]: expected 0 … 49, found 50/,
        );
        // A reshaped tensor is no longer the stored weight.
        const transposed = [table, plain].map((x) =>
          kernel('NnGatherRows', { x: tf.reshape(x, [25, 42]), indices: tf.tensor1d([24], 'int32') }),
        );
        expect(bitsOf(transposed[0]!)).toBe(bitsOf(transposed[1]!));
      });
      tf.dispose([table, plain]);
    });
  });

  function largestError(found: tf.Tensor, expected: tf.Tensor): number {
    expect(found.shape).toEqual(expected.shape);
    const scale = Math.max(...expected.dataSync().map(Math.abs));
    const w = expected.dataSync();
    return Math.max(...found.dataSync().map((x, i) => Math.abs(x - w[i]!))) / scale;
  }

  it.each(['F32', 'F16', 'BF16'] as const)(
    '%s: the largest magnitude of each column, also after its pages were dropped',
    (kind) => {
      for (const [rows, columns] of [
        [3, 5],
        [7, 129],
        [40, 300],
      ] as const) {
        const { bytes, values } = encoded(kind, rows * columns, 3);
        const file = fileOf(bytes, 64);
        const stored = tensorOf([rows, columns], kind, { file, begin: 64, bytes: bytes.length });
        const expected = Float32Array.from({ length: columns }, (_, k) =>
          Math.max(...Array.from({ length: rows }, (_, r) => Math.abs(values[r * columns + k]!))),
        );
        for (let time = 0; time < 2; time++) {
          const found = tf.engine().makeTensorFromTensorInfo(backend.columnMaxima(stored), backend);
          expect(found.dataSync()).toEqual(expected);
          expect(stored.dataSync()).toEqual(values);
          backend.dropPages(stored);
          found.dispose();
        }
        stored.dispose();
      }
      const x = tf.tensor([1, -2, Infinity, NaN, -0, -3, 2, 5, 1, 0, -Infinity, 1], [3, 4]);
      const found = tf.engine().makeTensorFromTensorInfo(backend.columnMaxima(x), backend);
      expect([...found.dataSync()]).toEqual([1, 3, Infinity, NaN]);
      tf.dispose([x, found]);
    },
  );

  it('upcasts every half-precision number exactly', () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const bytes = new Uint8Array(bits.buffer);
    const stored = tensorOf([256, 256], 'F16', { bytes });
    const values = stored.dataSync();
    const wrong = bits.filter((b) => !Object.is(values[b], halfValue(b)));
    expect([...wrong]).toEqual([]);
    stored.dispose();
  });

  it.skipIf(!bf16)('rounds other encodings once for bfloat16 matmul, and keeps the exact values', () => {
    backend.setPrecision('bfloat16');
    const [weight, plain] = pair('F32', 64, 50, 16);
    expect(backend.memory().numBytesStored).toBe(64 * 50 * 2);
    expect(addon.copiedBytes()).toBe(64 * 50 * 2);
    const both = pair('F32', 64, 50); // in memory, the exact values are kept as well as the copy
    expect(backend.memory().numBytesStored).toBe(64 * 50 * (2 + 6));
    expect(addon.copiedBytes()).toBe(64 * 50 * (2 + 6));
    tf.dispose(both);
    expect(bitsOf(weight)).toBe(bitsOf(plain));
    const x = tf.tensor(numbers(9 * 50, 1), [9, 50]);
    tf.tidy(() => {
      const [found, expected] = [weight, plain].map((w) => kernel('NnLinear', { x, weight: w }));
      expect(largestError(found!, expected!)).toBeLessThan(1e-6);
      backend.setPrecision('float32'); // the copy is not used then
      const [exact, exactExpected] = [weight, plain].map((w) => kernel('NnLinear', { x, weight: w }));
      expect(largestError(exact!, exactExpected!)).toBeLessThan(1e-6);
      expect(largestError(exact!, found!)).toBeGreaterThan(1e-5);
    });
    tf.dispose([weight, plain, x]);
  });

  it('counts the bytes in memory, and frees them with the last tensor of the weight', () => {
    const [stored, plain] = pair('BF16', 40, 30, 16);
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

  it('maps a file once for all its weights', () => {
    const { bytes } = encoded('F32', 60, 1);
    const file = fileOf(bytes, 8);
    const make = (begin: number) => tensorOf([5, 6], 'F32', { file, begin, bytes: 120 });
    const both = [make(8), make(8 + 120)];
    expect(addon.mappedBytes()).toBe(8 + 240 + 5);
    tf.dispose(both);
  });

  it('counts bytes in memory as copies', () => {
    const [stored, plain] = pair('F16', 40, 30);
    expect([backend.memory().numBytesStored, addon.copiedBytes(), addon.mappedBytes()]).toEqual([
      2400, 2400, 0,
    ]);
    tf.dispose([stored, plain]);
  });

  it('moves to another backend as float32', async () => {
    const [stored, plain] = pair('F16', 8, 9, 16);
    const expected = bitsOf(plain);
    await import('@tensorflow/tfjs-backend-cpu');
    (tf.findBackend('cpu') as unknown as { firstUse: boolean }).firstUse = false;
    await tf.setBackend('cpu');
    expect(bitsOf(tf.tidy(() => tf.add(stored, 0)))).toBe(expected);
    tf.dispose([stored, plain]);
    await tf.setBackend('native');
    before = tf.memory();
  });

  it('does not store small weights', () => {
    const weight = {
      shape: [10, 10] as const,
      data: { bytes: new Uint8Array(400) },
      encoding: { kind: 'F32' as const },
    };
    expect(backend.store(weight)).toBeUndefined();
    expect(backend.store(weight, 101)).toBeUndefined();
    expect(backend.store(weight, Infinity)).toBeUndefined();
    expect(backend.store({ ...weight, shape: [0, 10] }, 0)).toBeUndefined();
  });

  it('refuses spans that do not fit the weight', () => {
    const file = fileOf(new Uint8Array(4000), 0);
    const store = (begin: number, [rows, columns]: [number, number], path = file) =>
      tensorOf([rows, columns], 'F32', { file: path, begin, bytes: rows * columns * 4 });
    expect(() => store(6, [100, 10])).toThrow(
      /expected 4000 bytes of a weight from byte 6 on, the file has 4005 bytes \(truncated\?\)/,
    );
    expect(() => store(5000, [1, 1])).toThrow(/from byte 5000 on, the file has 4005/);
    expect(() => store(0, [2 ** 31, 2 ** 31])).toThrow(/bytes: expected a whole number/);
    expect(() => tensorOf([2 ** 31, 2 ** 31], 'F32', { file, begin: 0, bytes: 4 })).toThrow(
      'expected fewer bytes, found 4',
    );
    expect(() => tensorOf([2, 3], 'F16', { bytes: new Uint8Array(24) })).toThrow(
      'a weight of 2 x 3 numbers: expected 12 bytes, found 24',
    );
    expect(() => tensorOf([2, 3], 'F16', { bytes: new Uint16Array(6) as never })).toThrow(
      'spans[0].bytes: expected a Uint8Array or a number',
    );
    expect(() => addon.storeWeight('F32', 1, 1, [], false)).toThrow('spans: expected 1 entries, found 0');
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

  it('refuses a released handle, and other objects as a handle', () => {
    const { bytes } = encoded('F32', 4, 1);
    const handle = addon.storeWeight('F32', 2, 2, [{ bytes }], false);
    const y = new Float32Array(4);
    addon.storedFloats(handle, y);
    addon.releaseStored(handle);
    expect(() => addon.storedFloats(handle, y)).toThrow(/has been released/);
    expect(() => addon.storedFloats({} as never, y)).toThrow(/stored: expected a handle from this addon/);
    expect(() => addon.storedFloats(7 as never, y)).toThrow(/stored: expected a handle/);
    addon.releaseStored(handle); // a second call does nothing
  });
});
