/** Rounding in plain JavaScript gives the bytes of the addon, so that both make the same file. */
import { writeFileSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { roundWeight, spansOf } from '@blip2/nn';
import type { Encoding, StoredWeight } from '@blip2/nn';
import { describe, expect, it } from 'vitest';
import { addon, loaded, numbers } from '../spec/fixtures';
import { nativeRounding } from './index';
import { StoredWeights } from './stored-weights';

const bytesOf = (array: Float32Array | Uint16Array | Int8Array) => ({
  bytes: new Uint8Array(array.slice().buffer),
});
/** With a few large numbers, so that groups have different steps. */
const uneven = (n: number) => numbers(n, 2).map((x, i) => (i % 97 === 5 ? 8 * x : i % 130 > 65 ? x / 5 : x));
const factorsOf = (columns: number) => numbers(columns, 9).map((x) => 2 ** Math.round(4 * x) * (1 + x / 8));
const codes = (n: number) => Int8Array.from({ length: n }, (_, i) => ((i * 37) % 255) - 127);

function weightOf(kind: Encoding['kind'], rows: number, columns: number): StoredWeight {
  const n = rows * columns;
  const floats = uneven(n);
  const of = (data: Parameters<typeof bytesOf>[0], encoding: Encoding): StoredWeight => ({
    ...{ shape: [rows, columns], data: bytesOf(data), encoding },
  });
  switch (kind) {
    case 'BF16':
      return of(
        Uint16Array.from(new Uint32Array(floats.buffer, 0, n), (bits) => bits >>> 16),
        { kind },
      );
    case 'F16':
      return of(
        Uint16Array.from({ length: n }, (_, i) => (i * 40503) & 0xbbff),
        { kind },
      );
    case 'BNB8':
      return of(codes(n), { kind, scales: bytesOf(numbers(rows, 3)) });
    case 'BNB4': {
      const absmax = bytesOf(numbers(Math.ceil(n / 64), 4));
      return of(codes(Math.ceil(n / 2)), { kind, absmax, table: bytesOf(numbers(16, 5)) });
    }
    default:
      return of(floats, { kind: 'F32' });
  }
}

const parts = (weight: StoredWeight) => spansOf(weight).map(({ bytes }) => Buffer.from(bytes as Uint8Array));

const title = loaded.addon ? 'rounding without the addon' : `rounding (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(title, () => {
  const sizes = [
    [1, 1],
    [33, 70],
    [64, 128],
    [97, 257],
  ] as const;
  const both = (weight: StoredWeight, bits: 8 | 4) => {
    const factors = factorsOf(weight.shape[1]);
    const [found, expected] = [roundWeight(weight, factors, bits), nativeRounding()!(weight, factors, bits)];
    expect(found).toEqual({ ...expected, encoding: expect.objectContaining({ kind: `INT${bits}` }) });
    return [found, expected].map(parts);
  };

  describe.each([8, 4] as const)('to %i bits', (bits) => {
    it.each(['F32', 'BF16', 'F16', 'BNB8', 'BNB4'] as const)('of %s', (kind) => {
      for (const [rows, columns] of sizes) {
        const [found, expected] = both(weightOf(kind, rows, columns), bits);
        expect(found, `[${rows}, ${columns}]`).toEqual(expected);
      }
    });
    it('of rows that are not finite, and of tiny ones', () => {
      const rows = [NaN, Infinity, 1e-38, 0, 3e38].map((x) => numbers(70, 1).fill(x, 3, 5));
      rows[2]!.fill(1e-38);
      rows[3]!.fill(0);
      const values = Float32Array.from(rows.flatMap((row) => [...row]));
      const weight = { shape: [5, 70], data: bytesOf(values), encoding: { kind: 'F32' } } as const;
      const [found, expected] = both(weight, bits);
      expect(found).toEqual(expected);
    });
  });

  it('reads files by the given function, and refuses rounded weights', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'rounding-'));
    const file = join(folder, 'weight');
    const weight = weightOf('F32', 70, 50);
    const { bytes } = weight.data as { bytes: Uint8Array };
    writeFileSync(file, Buffer.concat([Buffer.alloc(12), bytes]));
    const whole = await readFile(file);
    const read = (name: string, at: number, length: number) => {
      expect(name).toBe(file);
      return whole.subarray(at, at + length);
    };
    const filed = { ...weight, data: { file, begin: 12, bytes: bytes.length } };
    const factors = factorsOf(50);
    expect(parts(roundWeight(filed, factors, 4, read))).toEqual(parts(roundWeight(weight, factors, 4)));
    expect(() => roundWeight(filed, factors, 4)).toThrow(`expected bytes in memory, found the file ${file}`);
    const rounded = new StoredWeights(addon).quantised(weight, factors, 8);
    expect(() => roundWeight(rounded, factors, 4)).toThrow(
      'expected exact weights, found ones that were rounded to int8',
    );
    await rm(folder, { recursive: true });
  });
});
