/** Weights in every encoding give the numbers of the backend native. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  columnMaxima,
  cpuBackend,
  dispose,
  dropPages,
  gatherRows,
  linear,
  normal,
  quantised,
} from '@blip2/nn';
import { memory, mul, rngKey, spansOf, startBackend, storedTensor, sum, tensor, tidy } from '@blip2/nn';
import { transpose, valueAndGrads } from '@blip2/nn';
import type { Scalar, Span, StoredWeight, Tensor2D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { backend } from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { useSoftwareDriver } from '../spec/software';
import type { GpuBackend } from './backend';
import { bufferOfWeight, openWeight } from './stored-weights';

const [ROWS, COLUMNS] = [70, 132];
const floats = (n: number, seed: number) => normal(rngKey(seed), n).slice();
const inMemory = (array: Float32Array | Uint16Array | Int8Array): Span => ({
  bytes: new Uint8Array(array.buffer, array.byteOffset, array.byteLength).slice(),
});

/** The high halves of float32 numbers. */
function bf16(values: Float32Array): Uint16Array {
  return Uint16Array.from(new Uint32Array(values.buffer.slice(0)), (bits) => bits >>> 16);
}

/** Float16 numbers of all kinds: random bits with exponents below the largest. */
const f16 = (n: number) => Uint16Array.from({ length: n }, (_, i) => (i * 40503) & 0xbbff);

function weights(rows: number, columns: number): Record<string, StoredWeight> {
  const n = rows * columns;
  const shape = [rows, columns] as const;
  const plain: StoredWeight = { shape, data: inMemory(floats(n, 1)), encoding: { kind: 'F32' } };
  const scales = inMemory(Float32Array.from({ length: rows }, (_, i) => 1 + i / 7));
  const codes = Int8Array.from({ length: n }, (_, i) => ((i * 37) % 255) - 127);
  const absmax = inMemory(Float32Array.from({ length: Math.ceil(n / 64) }, (_, i) => 0.5 + i / 9));
  const table = inMemory(Float32Array.from({ length: 16 }, (_, i) => i / 8 - 1));
  const half = inMemory(codes.slice(0, Math.ceil(n / 2)));
  return {
    F32: plain,
    BF16: { shape, data: inMemory(bf16(floats(n, 2))), encoding: { kind: 'BF16' } },
    F16: { shape, data: inMemory(f16(n)), encoding: { kind: 'F16' } },
    INT8: quantised(
      plain,
      Float32Array.from({ length: columns }, (_, i) => 1 + (i % 3)),
    )!,
    INT4: quantised(plain, undefined, 4)!,
    BNB8: { shape, data: inMemory(codes), encoding: { kind: 'BNB8', scales } },
    BNB4: { shape, data: half, encoding: { kind: 'BNB4', absmax, table } },
  };
}

/** Products of 1, 5 and 70 rows in both directions, rows by index, and the numbers themselves, on the active backend. */
async function computed(weight: StoredWeight): Promise<Float32Array[]> {
  const [rows, columns] = weight.shape;
  const w = storedTensor(weight, 1)!;
  const made = tidy(() => {
    const products = [1, 5, 70].flatMap((M) => {
      const x = tensor(floats(M * columns, 3), [M, columns]);
      const dy = tensor(floats(M * rows, 4), [M, rows]);
      const f = () => sum(mul(linear({ weight: w }, x), dy)) as Scalar;
      return [linear({ weight: w }, x), ...valueAndGrads(f, [x]).grads];
    });
    const picked = gatherRows(w, Int32Array.of(rows - 1, 0, 21, 21));
    return [...products, picked, transpose(w, [1, 0])]; // the last is a kernel of tfjs
  });
  const found = await Promise.all(made.map(async (x) => (await x.data()) as Float32Array));
  dispose([...made, w]);
  return found;
}

describe.skipIf(!useSoftwareDriver())('stored weights on WebGPU', () => {
  describe.each([
    [ROWS, COLUMNS],
    [33, 65],
  ])('[%i, %i]', (rows, columns) => {
    let made: Record<string, StoredWeight>;
    beforeAll(async () => {
      await useBackend('native', { precision: 'float32' });
      made = weights(rows, columns);
    });
    it.each(['F32', 'BF16', 'F16', 'INT8', 'INT4', 'BNB8', 'BNB4'])('%s', async (kind) => {
      await useBackend('native');
      const expected = await computed(made[kind]);
      await useBackend('webgpu');
      const before = memory();
      const found = await computed(made[kind]);
      expect(memory()).toEqual(before);
      expected.forEach((values, i) => {
        const size = Math.max(...values.map(Math.abs));
        const worst = Math.max(...values.map((value, j) => Math.abs(value - found[i][j])));
        expect(worst / size, `result ${i}`).toBeLessThan(2e-6);
      });
    });
  });

  it('refuses a weight whose bytes do not fit its shape', async () => {
    await useBackend('webgpu');
    const short = { bytes: new Uint8Array(10) };
    expect(() => storedTensor({ shape: [4, 4], data: short, encoding: { kind: 'BF16' } }, 1)).toThrow(
      'expected 32 bytes of BF16 for a weight [4,4], found 10',
    );
  });

  it('are copied for one command without a submission between the copies', async () => {
    await useBackend('webgpu');
    const gpu = backend() as GpuBackend;
    const stored = [1, 2, 3].map((value) => {
      const data = inMemory(new Float32Array(256).fill(value));
      return storedTensor({ shape: [16, 16], data, encoding: { kind: 'F32' } }, 1)!;
    });
    const y = gpu.allocate([1]);
    const inputs = ['a', 'b', 'c'].map(
      (x, i) => `@group(0) @binding(${i}) var<storage, read> ${x}: array<f32>;`,
    );
    const code = (at: number, value: string) =>
      `@group(0) @binding(${at}) var<storage, read_write> y: array<f32>;
      @compute @workgroup_size(1) fn main() { y[0] = ${value}; }`;
    const nothing = { name: 'nothing', code: code(0, '0.0') };
    const digits = { name: 'digits', code: inputs.join('\n') + code(3, '100.0 * a[0] + 10.0 * b[0] + c[0]') };
    for (let before = 58; before < 64; before++) {
      for (let i = 0; i < before; i++) gpu.run(nothing, [1], [y]);
      gpu.run(digits, [1], [...stored, y]);
      expect([...((await gpu.read(y.dataId)) as Float32Array)], `after ${before}`).toEqual([123]);
    }
    gpu.release(y);
    dispose(stored);
    await startBackend(cpuBackend);
  });

  it.each(['F32', 'BF16', 'INT8', 'INT4', 'BNB4'])('has the largest numbers of columns: %s', async (kind) => {
    await useBackend('native', { precision: 'float32' });
    const weight = weights(33, 65)[kind];
    const maxima = async () => {
      const w = storedTensor(weight, 1)!;
      const made = columnMaxima(w);
      const values = [...((await made.data()) as Float32Array)];
      dispose([w, made]);
      return values;
    };
    const expected = await maxima();
    await useBackend('webgpu');
    (await maxima()).forEach((value, i) => expect(value).toBeCloseTo(expected[i], 5));
    const x = tensor(Float32Array.of(1, -3, NaN, 2, 2, 5), [2, 1, 3]);
    const ordinary = columnMaxima(x);
    expect([...((await ordinary.data()) as Float32Array)]).toEqual([2, 3, NaN]);
    dispose([x, ordinary]);
  });

  it('rounds as native does, with and without its addon', async () => {
    await useBackend('native');
    const plain: StoredWeight = {
      shape: [40, 70],
      data: inMemory(floats(2800, 1)),
      encoding: { kind: 'F32' },
    };
    const expected = [8, 4].map((bits) => spansOf(quantised(plain, undefined, bits as 8 | 4)!));
    await useBackend('webgpu', { precision: 'float32' });
    const found = () => [8, 4].map((bits) => spansOf(quantised(plain, undefined, bits as 8 | 4)!));
    expect(found()).toEqual(expected);
    const { precision, tried } = await useBackend('webgpu', { precision: 'int4' });
    expect([precision, tried[0].why]).toEqual(['int4', expect.stringMatching(/, int4 weights$/)]);
    expect(found()).toEqual(expected);
  });

  it('leave no buffer behind when their file cannot be read', async () => {
    await useBackend('webgpu');
    const { device, bufferBytes } = backend() as GpuBackend;
    const read = () => {
      throw new Error('read failed');
    };
    const files = { read, stamp: () => 'the same' };
    const data = { file: 'weight', begin: 0, bytes: 4 * 32 * 64 };
    const entry = openWeight(device, { shape: [32, 64], data, encoding: { kind: 'F32' } }, files);
    const before = bufferBytes.now;
    expect(() => bufferOfWeight(device, entry, files)).toThrow('read failed');
    expect(bufferBytes.now).toBe(before);
  });

  it('are read from their file when they are used, and leave the GPU', async () => {
    await useBackend('webgpu');
    const folder = await mkdtemp(join(tmpdir(), 'stored-'));
    const file = join(folder, 'weight');
    await writeFile(file, new Uint8Array(floats(32 * 64, 5).buffer));
    const before = memory();
    const span = { file, begin: 0, bytes: 4 * 32 * 64 };
    const w = storedTensor({ shape: [32, 64], data: span, encoding: { kind: 'F32' } }, 1)!;
    const x = tensor(floats(3 * 64, 6), [3, 64]);
    const product = async () => {
      const y = linear({ weight: w }, x);
      const values = [...((await y.data()) as Float32Array)];
      dispose(y);
      return values;
    };
    expect(memory().numBytesStored).toBe(before.numBytesStored);
    const expected = await product();
    expect(memory().numBytesStored - before.numBytesStored).toBe(span.bytes);
    dropPages(w);
    expect(memory().numBytesStored).toBe(before.numBytesStored);
    expect(await product()).toEqual(expected);
    expect(memory().numBytesStored - before.numBytesStored).toBe(span.bytes);
    dropPages(w);
    const refusal = `${file}: expected the file that was opened, found it changed or deleted`;
    await writeFile(file, new Uint8Array(span.bytes));
    await expect(product()).rejects.toThrow(refusal);
    await rm(file);
    await expect(product()).rejects.toThrow(refusal);
    dispose([w, x]);
    expect(memory()).toEqual(before);
    await rm(folder, { recursive: true });
  });

  it('counts the bytes of the encoding', async () => {
    await useBackend('webgpu');
    const before = memory();
    const data = inMemory(bf16(floats(64 * 64, 2)));
    const w = storedTensor({ shape: [64, 64], data, encoding: { kind: 'BF16' } }, 1) as Tensor2D;
    const held = memory();
    expect(held.numBytesStored - before.numBytesStored).toBe(64 * 64 * 2);
    expect(held.numBytes).toBe(before.numBytes);
    dispose(w);
    expect(memory()).toEqual(before);
    await startBackend(cpuBackend);
  });
});
