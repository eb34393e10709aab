/** Matmul with int4 weights: equal to the bit to whole-number arithmetic, at every level and number of threads. */
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

const own = ['portable', 'dotprod', 'avx2', 'avxvnni', 'avx512', 'avx512vnni'];
/** The levels with a matmul of their own in 8 bits; avx512bf16 has that of avx512vnni. */
const tested = [
  ...levels.filter((level) => own.includes(level)),
  ...bfloat16Levels.filter((level) => level.startsWith('amx')),
];

/** Numbers with a few large ones, as weights have them, so that groups have different steps. */
const uneven = (n: number, seed: number) =>
  numbers(n, seed).map((x, i) => (i % 97 === 5 ? 8 * x : i % 130 > 65 ? x / 5 : x));
const factorsOf = (columns: number) => numbers(columns, 9).map((x) => 2 ** Math.round(2 * x) * (1 + x / 8));
const bytesOf = (array: Float32Array | Uint8Array) => new Uint8Array(array.slice().buffer);

interface Made {
  handle: StoredHandle;
  codes: Uint8Array;
  steps: Uint8Array;
  scales: Float32Array;
}

const open = (rows: number, columns: number, parts: (Float32Array | Uint8Array)[]) =>
  addon.storeWeight(
    'INT4',
    rows,
    columns,
    parts.map((part) => ({ bytes: bytesOf(part) })),
    false,
  );

/** An int4 weight [rows, columns] made by the addon. */
function make(w: Float32Array, rows: number, columns: number, factors: Float32Array): Made {
  const from = addon.storeWeight('F32', rows, columns, [{ bytes: bytesOf(w) }], false);
  const groups = Math.ceil(rows / 32) * Math.ceil(columns / 64);
  const [codes, steps, scales] = [
    new Uint8Array(groups * 1024),
    new Uint8Array(groups * 32),
    new Float32Array(rows),
  ];
  addon.quantiseInt4(from, factors, codes, steps, scales);
  addon.releaseStored(from);
  return { handle: open(rows, columns, [codes, steps, scales, factors]), codes, steps, scales };
}

/** Group of row n and column k, and the code there. */
const groupAt = (columns: number, n: number, k: number) =>
  Math.floor(n / 32) * Math.ceil(columns / 64) + Math.floor(k / 64);
function codeAt({ codes }: Made, columns: number, n: number, k: number): number {
  const byte =
    codes[groupAt(columns, n, k) * 1024 + Math.floor((k % 64) / 8) * 128 + (n % 32) * 4 + (k % 4)]!;
  return k % 8 < 4 ? byte & 15 : byte >> 4;
}

const title = loaded.addon ? 'int4' : `int4 (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(title, () => {
  afterAll(() => addon.setInstructionSet(levels.at(-1)!));

  const sizes = [
    [1, 1, 1],
    [1, 33, 70],
    [2, 64, 128],
    [3, 32, 32],
    [5, 64, 128],
    [7, 19, 21],
    [8, 96, 65],
    [9, 31, 257],
    [15, 64, 96],
    [29, 130, 100],
    [44, 192, 192],
    [57, 70, 31],
  ] as const;

  describe.each(tested)('%s', (level) => {
    it('makes the encoding by its definition', () => {
      addon.setInstructionSet(level);
      for (const [, N, K] of sizes) {
        const [w, factors] = [uneven(N * K, 2), factorsOf(K)];
        const made = make(w, N, K, factors);
        const expected = reference.int4Weight(w, N, K, factors);
        expect(made.scales).toEqual(expected.scales);
        const step = (n: number, k: number) => made.steps[groupAt(K, n, k) * 32 + (n % 32)]!;
        expected.steps.forEach((of, n) => expect(of.map((_, g) => step(n, 64 * g))).toEqual(of));
        const q = expected.q.map((_, i) => {
          const [n, k] = [Math.floor(i / K), i % K];
          return (codeAt(made, K, n, k) - 8) * step(n, k);
        });
        expect(q).toEqual(expected.q);
        const values = new Float32Array(N * K);
        addon.storedFloats(made.handle, values);
        const exact = expected.q.length;
        for (let i = 0; i < exact; i++) {
          const n = Math.floor(i / K);
          expect(values[i]).toBe(
            Math.fround(Math.fround(expected.q[i]! * made.scales[n]!) * factors[i % K]!),
          );
        }
        addon.releaseStored(made.handle);
      }
    });

    it('x·Wᵀ with bias, residual and activation, and dy·W, are exact', () => {
      addon.setInstructionSet(level);
      for (const [M, N, K] of sizes) {
        const [w, factors, bias] = [uneven(N * K, 2), factorsOf(K), numbers(N, 3)];
        const weight = reference.int4Weight(w, N, K, factors);
        const { handle } = make(w, N, K, factors);
        const x = misaligned(uneven(M * K, 4), 1);
        const dy = misaligned(uneven(M * N, 5), 3);
        const what = `M=${M} N=${N} K=${K}`;
        const times = (b: Float32Array | null, activation: 'none' | 'relu', r: Float32Array | null) =>
          run((room) =>
            addon.timesWeight(x, handle, true, b, activation, r, room(M * N), M, N, K, 'int8'),
          )[0]!;
        const plain = reference.int8MatMul(x, weight, true, bias);
        expect(times(null, 'none', null), what).toEqual(reference.int8MatMul(x, weight, true, null));
        expect(times(bias, 'none', dy), what).toEqual(plain.map((y, i) => y + dy[i]!));
        expect(times(bias, 'relu', null), what).toEqual(plain.map((y) => (y < 0 ? 0 : y)));
        const [dx] = run((room) =>
          addon.timesWeight(dy, handle, false, null, 'none', null, room(M * K), M, K, N, 'int8'),
        );
        expect(dx, what).toEqual(reference.int8MatMul(dy, weight, false, null));
        addon.releaseStored(handle);
      }
    });

    it('rows that are not finite give NaN, and no other row changes; zeros, tiny and huge numbers', () => {
      addon.setInstructionSet(level);
      const [N, K] = [40, 70];
      const ones = new Float32Array(K).fill(1);
      const w = uneven(N * K, 2);
      [NaN, Infinity, -Infinity].forEach((value, i) => (w[(2 * i + 1) * K + 69 - i] = value));
      w.fill(0, 6 * K, 7 * K);
      w.fill(1e-38, 8 * K, 9 * K);
      w.subarray(9 * K, 10 * K).forEach((_, i, row) => (row[i] = i % 2 ? 3e38 : -1e38));
      w.fill(2 ** -100, 11 * K, 12 * K);
      const weight = reference.int4Weight(w, N, K, ones);
      const { handle } = make(w, N, K, ones);
      for (const M of [1, 17]) {
        const x = uneven(M * K, 4).map((v) => v / 8); // sums of 3e38 would be infinite
        const [y] = run((room) =>
          addon.timesWeight(x, handle, true, null, 'none', null, room(M * N), M, N, K, 'int8'),
        );
        expect(y).toEqual(reference.int8MatMul(x, weight, true, null));
        expect([...y!.subarray(0, N).keys()].filter((i) => Number.isNaN(y![i]!))).toEqual([1, 3, 5]);
      }
      addon.releaseStored(handle);
    });
  });

  it('is the same with more rows and columns than one task has, whatever the number of threads', () => {
    const [N, K] = [1100, 300];
    const [w, factors] = [uneven(N * K, 2), factorsOf(K)];
    for (const M of [1, 6, 230]) {
      const results = tested.map((level) => {
        addon.setInstructionSet(level);
        const { handle, codes, steps } = make(w, N, K, factors);
        const [x, dy] = [uneven(M * K, 4), uneven(M * N, 5)];
        const made = [1, 2, 7].map((threads) => {
          addon.setThreads(threads);
          const [y, dx] = [new Float32Array(M * N), new Float32Array(M * K)];
          addon.timesWeight(x, handle, true, null, 'none', null, y, M, N, K, 'int8');
          addon.timesWeight(dy, handle, false, null, 'none', null, dx, M, K, N, 'int8');
          return Buffer.concat([y, dx, codes, steps].map(bytesOf));
        });
        addon.releaseStored(handle);
        return made;
      });
      expect(results.flat().every((other) => other.equals(results[0]![0]!))).toBe(true);
      addon.setThreads(2);
    }
  });

  it('in float32, the weight has its exact values in both directions', () => {
    addon.setInstructionSet(levels.at(-1)!);
    const [N, K] = [40, 130];
    const { handle } = make(uneven(N * K, 2), N, K, factorsOf(K));
    const values = new Float32Array(N * K);
    addon.storedFloats(handle, values);
    for (const M of [1, 2, 60]) {
      const [x, dy] = [uneven(M * K, 4), uneven(M * N, 5)];
      const [y, dx] = [new Float32Array(M * N), new Float32Array(M * K)];
      addon.timesWeight(x, handle, true, null, 'none', null, y, M, N, K, 'float32');
      expectClose(y, reference.matMul(x, false, values, true, M, N, K), 1e-5);
      addon.timesWeight(dy, handle, false, null, 'none', null, dx, M, K, N, 'float32');
      expectClose(dx, reference.matMul(dy, false, values, false, M, K, N), 1e-5);
    }
    const rows = new Float32Array(2 * K);
    addon.storedRows(handle, Int32Array.of(39, 0), rows);
    expect(rows.subarray(0, K)).toEqual(values.subarray(39 * K));
    addon.releaseStored(handle);
  });

  it('loses less than steps from the largest number alone', () => {
    const [N, K] = [64, 512];
    const ones = new Float32Array(K).fill(1);
    // Sums of four numbers, nearly normal as weights are.
    const [a, b, c, d] = [1, 2, 3, 4].map((seed) => numbers(N * K, seed));
    const w = new Float32Array(N * K).map((_, i) => a![i]! + b![i]! + c![i]! + d![i]!);
    const { handle } = make(w, N, K, ones);
    const values = new Float32Array(N * K);
    addon.storedFloats(handle, values);
    addon.releaseStored(handle);
    let [mine, plain, all] = [0, 0, 0];
    for (let i = 0; i < N * K; i += 64) {
      const group = [...w.subarray(i, i + 64)];
      const scale = Math.max(...group.map(Math.abs)) / 7.5;
      group.forEach((x, j) => {
        mine += (x - values[i + j]!) ** 2;
        plain += (x - scale * Math.min(7, Math.max(-8, Math.round(x / scale)))) ** 2;
        all += x * x;
      });
    }
    expect(Math.sqrt(mine / plain)).toBeLessThan(1);
    expect(Math.sqrt(mine / all)).toBeLessThan(0.1);
  });

  it('refuses parts that do not fit the weight', () => {
    const [N, K] = [70, 150];
    const { codes, steps, scales } = make(uneven(N * K, 2), N, K, factorsOf(K));
    const parts = [codes, steps, scales, factorsOf(K)].map(bytesOf);
    parts.forEach((part, i) => {
      const cut = parts.map((other, j) => (i === j ? other.subarray(1) : other));
      expect(() => open(N, K, cut)).toThrow(`expected ${part.length} bytes, found ${part.length - 1}`);
    });
    expect(() => open(N, K, parts.slice(1))).toThrow('spans');
  });
});
