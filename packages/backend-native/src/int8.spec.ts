/** Matmul with int8 weights: equal to the bit to whole-number arithmetic, at every level and number of threads. */
import { afterAll, describe, expect, it } from 'vitest';
import type { StoredHandle } from './addon';
import * as reference from '../spec/scalar-reference';
import {
  addon,
  bfloat16Levels,
  expectClose,
  levels,
  loaded,
  misaligned,
  numbers,
  run,
} from '../spec/fixtures';

const own = ['portable', 'dotprod', 'avx2', 'avxvnni', 'avx512', 'avx512vnni', 'avx512bf16'];
/** The levels with an int8 matmul of their own, and avx512bf16, which has that of avx512vnni. AMX is emulated where it is absent. */
const tested = [
  ...levels.filter((level) => own.includes(level)),
  ...bfloat16Levels.filter((level) => level.startsWith('amx')),
];

/** Numbers with a few large ones, as activations have them. */
const uneven = (n: number, seed: number) => numbers(n, seed).map((x, i) => (i % 37 === 5 ? 40 * x : x));
const factorsOf = (columns: number) => numbers(columns, 9).map((x) => 2 ** Math.round(2 * x) * (1 + x / 8));
const bytesOf = (array: Float32Array | Uint8Array) => new Uint8Array(array.slice().buffer);

interface Made {
  handle: StoredHandle;
  blocks: Uint8Array;
  scales: Float32Array;
}

/** An int8 weight [rows, columns] made by the addon. */
function make(w: Float32Array, rows: number, columns: number, factors: Float32Array): Made {
  const from = addon.storeWeight('F32', rows, columns, [{ bytes: bytesOf(w) }], false);
  const blocks = new Uint8Array(Math.ceil(rows / 32) * Math.ceil(columns / 32) * 1024);
  const scales = new Float32Array(rows);
  addon.quantise(from, factors, blocks, scales);
  addon.releaseStored(from);
  const spans = [blocks, scales, factors].map((part) => ({ bytes: bytesOf(part) }));
  return { handle: addon.storeWeight('INT8', rows, columns, spans, false), blocks, scales };
}

/** q of row n and column k in its block. */
const at = (blocks: Uint8Array, columns: number, n: number, k: number) =>
  blocks[
    (Math.floor(n / 32) * Math.ceil(columns / 32) + Math.floor(k / 32)) * 1024 +
      Math.floor((k % 32) / 4) * 128 +
      (n % 32) * 4 +
      (k % 4)
  ]! - 128;

const title = loaded.addon ? 'int8' : `int8 (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(title, () => {
  afterAll(() => addon.setInstructionSet(levels.at(-1)!));

  const sizes = [
    [1, 1, 1],
    [1, 33, 70],
    [3, 32, 32],
    [5, 64, 128],
    [7, 19, 21],
    [14, 96, 65],
    [15, 31, 257],
    [29, 130, 100],
    [44, 192, 192],
    [57, 70, 31],
  ] as const;

  describe.each(tested)('%s', (level) => {
    it('makes the encoding by its definition', () => {
      addon.setInstructionSet(level);
      for (const [, N, K] of sizes) {
        const [w, factors] = [uneven(N * K, 2), factorsOf(K)];
        const { handle, blocks, scales } = make(w, N, K, factors);
        const expected = reference.int8Weight(w, N, K, factors);
        expect(scales).toEqual(expected.scales);
        const q = expected.q.map((_, i) => at(blocks, K, Math.floor(i / K), i % K));
        expect(q).toEqual(expected.q);
        const values = new Float32Array(N * K);
        addon.storedFloats(handle, values);
        const exact = [...expected.q].map((q, i) => q * scales[Math.floor(i / K)]! * factors[i % K]!);
        expectClose(values, exact, 1e-5);
        addon.releaseStored(handle);
      }
    });

    it('x·Wᵀ with bias, residual and activation, and dy·W, are exact', () => {
      addon.setInstructionSet(level);
      for (const [M, N, K] of sizes) {
        const [w, factors, bias] = [uneven(N * K, 2), factorsOf(K), numbers(N, 3)];
        const weight = reference.int8Weight(w, N, K, factors);
        const { handle } = make(w, N, K, factors);
        const x = misaligned(uneven(M * K, 4), 1);
        const dy = misaligned(uneven(M * N, 5), 3);
        const what = `M=${M} N=${N} K=${K}`;
        const times = (
          b: Float32Array | null,
          activation: 'none' | 'relu' | 'gelu',
          r: Float32Array | null,
        ) =>
          run((room) =>
            addon.timesWeight(x, handle, true, b, activation, r, room(M * N), M, N, K, 'int8'),
          )[0]!;
        const plain = reference.int8MatMul(x, weight, true, bias);
        expect(times(null, 'none', null), what).toEqual(reference.int8MatMul(x, weight, true, null));
        expect(times(bias, 'none', null), what).toEqual(plain);
        expect(times(bias, 'none', dy), what).toEqual(plain.map((y, i) => y + dy[i]!));
        expect(times(bias, 'relu', null), what).toEqual(plain.map((y) => (y < 0 ? 0 : y)));
        const gelu = new Float32Array(M * N);
        addon.gelu(plain, gelu);
        expect(times(bias, 'gelu', dy), what).toEqual(gelu.map((y, i) => y + dy[i]!));
        const [dx] = run((room) =>
          addon.timesWeight(dy, handle, false, null, 'none', null, room(M * K), M, K, N, 'int8'),
        );
        expect(dx, what).toEqual(reference.int8MatMul(dy, weight, false, null));
        addon.releaseStored(handle);
      }
    });

    it('rows that are not finite give NaN, and no other row changes; zeros, tiny and huge numbers', () => {
      addon.setInstructionSet(level);
      const [M, N, K] = [17, 40, 70];
      const w = uneven(N * K, 2);
      const ones = new Float32Array(K).fill(1);
      const weight = reference.int8Weight(w, N, K, ones);
      const { handle } = make(w, N, K, ones);
      const x = uneven(M * K, 4);
      [NaN, Infinity, -Infinity].forEach((value, i) => (x[(2 * i + 1) * K + 69 - i] = value));
      x.fill(0, 6 * K, 7 * K);
      x.fill(1e-38, 8 * K, 9 * K); // below the smallest largest number: counts as zero
      x.subarray(9 * K, 10 * K).forEach((_, i, row) => (row[i] = i % 2 ? 3e38 : -1e38));
      x.fill(1e-45, 10 * K, 11 * K);
      x.fill(2 ** -100, 11 * K, 12 * K);
      for (const transposed of [true, false]) {
        const [n, k] = transposed ? [N, K] : [K, N];
        const values = transposed ? x : x.subarray(0, M * N);
        const [y] = run((room) =>
          addon.timesWeight(values, handle, transposed, null, 'none', null, room(M * n), M, n, k, 'int8'),
        );
        expect(y).toEqual(reference.int8MatMul(values, weight, transposed, null));
        expect(y!.some(Number.isNaN)).toBe(true);
        expect(y!.some((v) => v !== 0 && Number.isFinite(v))).toBe(true);
      }
      addon.releaseStored(handle);
      const spoilt = w.slice();
      spoilt[3 * K + 5] = NaN;
      const other = make(spoilt, N, K, ones);
      const z = new Float32Array(N);
      addon.timesWeight(uneven(K, 1), other.handle, true, null, 'none', null, z, 1, N, K, 'int8');
      expect([...z.keys()].filter((i) => Number.isNaN(z[i]!))).toEqual([3]);
      addon.releaseStored(other.handle);
    });
  });

  it('is the same with more rows and columns than one task has, whatever the number of threads', () => {
    const [M, N, K] = [230, 1100, 300];
    const [w, factors] = [uneven(N * K, 2), factorsOf(K)];
    const results = tested.map((level) => {
      addon.setInstructionSet(level);
      const { handle, blocks } = make(w, N, K, factors);
      const [x, dy] = [uneven(M * K, 4), uneven(M * N, 5)];
      const made = [1, 2, 7].map((threads) => {
        addon.setThreads(threads);
        const [y, dx] = [new Float32Array(M * N), new Float32Array(M * K)];
        addon.timesWeight(x, handle, true, null, 'none', null, y, M, N, K, 'int8');
        addon.timesWeight(dy, handle, false, null, 'none', null, dx, M, K, N, 'int8');
        return Buffer.concat([y, dx, blocks].map(bytesOf));
      });
      addon.releaseStored(handle);
      return made;
    });
    expect(results.flat().every((other) => other.equals(results[0]![0]!))).toBe(true);
    addon.setThreads(2);
  });

  it('in float32 and bfloat16, the weight has its exact values', () => {
    addon.setInstructionSet(levels.at(-1)!);
    const [M, N, K] = [60, 40, 70];
    const { handle } = make(uneven(N * K, 2), N, K, factorsOf(K));
    const values = new Float32Array(N * K);
    addon.storedFloats(handle, values);
    const x = uneven(M * K, 4);
    for (const m of [2, M]) {
      const y = new Float32Array(m * N);
      addon.timesWeight(x.subarray(0, m * K), handle, true, null, 'none', null, y, m, N, K, 'float32');
      expectClose(y, reference.matMul(x, false, values, true, m, N, K), 1e-5);
    }
    const rows = new Float32Array(2 * K);
    addon.storedRows(handle, Int32Array.of(39, 0), rows);
    expect(rows.subarray(0, K)).toEqual(values.subarray(39 * K));
    addon.releaseStored(handle);
  });

  it('refuses parts that do not fit the weight', () => {
    const spans = (blocks: number, scales: number, factors: number) =>
      [blocks, scales, factors].map((n) => ({ bytes: new Uint8Array(n) }));
    const open = (...parts: [number, number, number]) =>
      addon.storeWeight('INT8', 33, 40, spans(...parts), false);
    addon.releaseStored(open(4096, 132, 160));
    expect(() => open(2048, 132, 160)).toThrow('expected 4096 bytes, found 2048');
    expect(() => open(4096, 128, 160)).toThrow('expected 132 bytes, found 128');
    expect(() => open(4096, 132, 164)).toThrow('expected 160 bytes, found 164');
    expect(() => addon.storeWeight('INT8', 33, 40, spans(4096, 132, 160).slice(1), false)).toThrow('spans');
  });
});
