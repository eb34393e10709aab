/** Quantised weights as their companions describe them. Golden values of bitsandbytes: packages/blip2/src/bitsandbytes.spec.ts. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { safetensorsBytes } from './encode';
import type { TensorToWrite } from './encode';
import { int8Tensors, nf4Tensors } from './encode-quantised';
import { WeightsError } from './errors';
import { readSafetensors } from './reader';

const numbers = (count: number) => new Float32Array(count).map((_, i) => Math.sin(i * i + 1) * (1 + (i % 7)));
const matrix = (rows: number, columns: number, values = numbers(rows * columns)) =>
  ({ name: 'a.weight', shape: [rows, columns], read: async () => values }) as const;
const open = async (tensors: TensorToWrite[]) => readSafetensors(await safetensorsBytes(tensors));
const part = (tensors: TensorToWrite[], end: string) => tensors.find(({ name }) => name.endsWith(end))!;

describe('quantised weights', () => {
  const sizes = [
    [1, 1],
    [3, 5],
    [2, 64],
    [7, 33],
    [40, 130],
  ] as const;

  it.each(sizes)('int8 [%i, %i]: one entry with the shape of the weight', async (rows, columns) => {
    const values = numbers(rows * columns);
    const reader = await open([
      ...int8Tensors(matrix(rows, columns)),
      { name: 'b', dtype: 'F32', shape: [1], data: numbers(1) },
    ]);
    expect([...reader.entries.keys()].sort()).toEqual(['a.weight', 'b']);
    expect(reader.entries.get('a.weight')).toMatchObject({
      shape: [rows, columns],
      quantised: { kind: 'BNB8' },
    });
    const found = await reader.readFloat32('a.weight');
    for (let n = 0; n < rows; n++) {
      const row = values.subarray(n * columns, (n + 1) * columns);
      const most = row.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
      row.forEach((x, k) =>
        expect(Math.abs(found[n * columns + k]! - x)).toBeLessThanOrEqual((most / 254) * 1.0001),
      );
    }
    expect(await reader.readRaw('a.weight')).toHaveLength(rows * columns);
  });

  it.each(sizes)('nf4 [%i, %i]: the nearest level of each number', async (rows, columns) => {
    const values = numbers(rows * columns);
    const reader = await open(nf4Tensors(matrix(rows, columns), 'F32'));
    expect(reader.entries.get('a.weight')).toMatchObject({
      shape: [rows, columns],
      quantised: { kind: 'BNB4', type: 'nf4' },
    });
    const levels = await reader.readFloat32('a.weight.quant_map');
    const absmax = await reader.readAbsmax('a.weight');
    const found = await reader.readFloat32('a.weight');
    values.forEach((x, i) => {
      const scale = absmax[Math.floor(i / 64)]!;
      const least = Math.min(...[...levels].map((level) => Math.abs(level * scale - x)));
      expect(Math.abs(found[i]! - x)).toBeLessThanOrEqual(least + 1e-6);
    });
  });

  it('rows of zeros, and numbers that are not finite', async () => {
    const values = numbers(4 * 64);
    values.fill(0, 0, 64);
    values[64] = NaN;
    values[128] = Infinity;
    const eight = await (await open(int8Tensors(matrix(4, 64, values)))).readFloat32('a.weight');
    expect(eight.subarray(0, 64)).toEqual(new Float32Array(64));
    expect(eight.subarray(64, 192).every(Number.isNaN)).toBe(true);
    expect(eight.subarray(192).every(Number.isFinite)).toBe(true);
    const four = await (await open(nf4Tensors(matrix(4, 64, values), 'F32'))).readFloat32('a.weight');
    expect(four.subarray(0, 64)).toEqual(new Float32Array(64));
    expect(four.subarray(64, 192).some(Number.isFinite)).toBe(false);
    expect(four.subarray(192).every(Number.isFinite)).toBe(true);
  });

  it('larger blocks, other float types of scales, and packed bytes under another type', async () => {
    const plain = nf4Tensors(matrix(8, 64), 'F32');
    const state = { quant_type: 'nf4', blocksize: 128, dtype: 'float16', shape: [8, 64] };
    const text = new TextEncoder().encode(JSON.stringify(state));
    const codes = new Uint8Array(256).map((_, i) => i);
    const tensors: TensorToWrite[] = [
      { name: 'a.weight', dtype: 'BF16', shape: [128, 1], data: codes },
      { name: 'a.weight.absmax', dtype: 'F16', shape: [4], data: Float32Array.of(1, 2, 4, 8) },
      part(plain, '.quant_map'),
      { ...part(plain, '__nf4'), shape: [text.length], data: text },
    ];
    const found = await (await open(tensors)).readFloat32('a.weight');
    const levels = part(plain, '.quant_map').data as Float32Array;
    const wanted = found.map(
      (_, i) => levels[i % 2 ? codes[i >> 1]! & 15 : codes[i >> 1]! >> 4]! * 2 ** Math.floor(i / 128),
    );
    expect(found).toEqual(wanted);
  });

  it('double quantisation: absmax from its own table, plus the offset', async () => {
    const plain = nf4Tensors(matrix(5, 64), 'F32');
    const state = {
      ...{ quant_type: 'nf4', blocksize: 64, dtype: 'float32', shape: [5, 64] },
      ...{ nested_blocksize: 256, nested_dtype: 'float32', nested_offset: 0.7 },
    };
    const text = new TextEncoder().encode(JSON.stringify(state));
    const table = new Float32Array(256).map((_, i) => i / 255);
    const reader = await open([
      part(plain, 'a.weight'),
      { name: 'a.weight.absmax', dtype: 'U8', shape: [5], data: Uint8Array.of(0, 51, 255, 7, 200) },
      { name: 'a.weight.nested_absmax', dtype: 'F32', shape: [1], data: Float32Array.of(3) },
      { name: 'a.weight.nested_quant_map', dtype: 'F32', shape: [256], data: table },
      part(plain, '.quant_map'),
      { ...part(plain, '__nf4'), shape: [text.length], data: text },
    ]);
    const { fround } = Math;
    const wanted = [0, 51, 255, 7, 200].map((code) => fround(fround(table[code]! * 3) + fround(0.7)));
    expect([...(await reader.readAbsmax('a.weight'))]).toEqual(wanted);
  });

  it('a tensor of scales alone is an ordinary tensor', async () => {
    const scales = { name: 'a.scales', dtype: 'F32', shape: [2], data: numbers(2) } as const;
    const reader = await open([scales, { ...scales, name: 'a' }, { ...scales, name: 'b.absmax' }]);
    expect(reader.entries.size).toBe(3);
    await expect(reader.readAbsmax('a')).rejects.toThrow(/expected a weight in 4 bits of bitsandbytes/);
  });

  it('is read or refused, whatever the quant_state is', async () => {
    const json = fc.oneof(
      fc.json(),
      fc
        .record({
          shape: fc.oneof(
            fc.array(fc.oneof(fc.integer(), fc.double())),
            fc.constant([4, 64]),
            fc.jsonValue(),
          ),
          blocksize: fc.oneof(fc.constantFrom(64, 32, 128, 1, 0, -64, 1e300), fc.jsonValue()),
          nested_blocksize: fc.jsonValue(),
          nested_offset: fc.jsonValue(),
        })
        .map((record) => JSON.stringify(record)),
    );
    const plain = nf4Tensors(matrix(4, 64), 'F32');
    const nested: TensorToWrite = {
      name: 'a.weight.nested_absmax',
      dtype: 'F32',
      shape: [1],
      data: numbers(1),
    };
    await fc.assert(
      fc.asyncProperty(json, fc.boolean(), async (text, isNested) => {
        const data = new TextEncoder().encode(text);
        const tensors = plain.map((t) =>
          t.name.endsWith('__nf4') ? { ...t, shape: [data.length], data } : t,
        );
        try {
          const reader = await open(isNested ? [...tensors, nested] : tensors);
          expect(await reader.readFloat32('a.weight')).toHaveLength(256);
        } catch (error) {
          expect(error).toBeInstanceOf(WeightsError);
        }
      }),
      { numRuns: 300 },
    );
  });
});
