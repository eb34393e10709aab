/** Matmul in bfloat16, and packed operands in both precisions. */
import { setImmediate as turn } from 'node:timers/promises';
import type { Precision } from '@blip2/nn';
import { describe, expect, it } from 'vitest';
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
  sizes,
} from '../spec/fixtures';

const forms = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
] as const;

const name = loaded.addon ? 'native matmul' : `native matmul (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(name, () => {
  const cases = [
    ...levels.map((level) => [level, 'float32'] as const),
    ...bfloat16Levels.map((level) => [level, 'bfloat16'] as const),
  ];

  // With sanitizers this takes long, and vitest ends a worker that blocks for a minute: hence the pauses.
  it('packed operands give the same bits, at every level and precision', async () => {
    for (const [M, N, K] of [
      [5, 1, 1],
      [46, 33, 65],
      [19, 37, 0],
      [130, 200, 801],
      [7, 4300, 9],
      [120, 1030, 400],
      [130, 70, 2051],
      [17, 70, 4100],
    ] as const) {
      const [a, b, bias] = [numbers(M * K, 1), misaligned(numbers(K * N, 2), 1), numbers(N, 3)];
      for (const [level, precision] of cases)
        for (const transposed of [false, true]) {
          await turn();
          addon.setInstructionSet(level);
          const [expected] = run((make) =>
            addon.gemm(a, false, b, transposed, bias, make(M * N), 1, M, N, K, false, false, precision),
          );
          const packed = misaligned(new Float32Array(addon.packedLength(N, K, precision)), N % 5);
          addon.pack(b, transposed, packed, N, K, precision);
          const [found] = run((make) =>
            addon.timesPacked(a, packed, bias, 'none', null, make(M * N), M, N, K, precision),
          );
          const same = Buffer.from(found!.buffer).equals(Buffer.from(expected!.buffer));
          expect(same, `${level} ${precision} M=${M} N=${N} K=${K} transposed=${transposed}`).toBe(true);
        }
    }
  });

  it('activation and residual give the same bits as separate passes, at every level and precision', async () => {
    for (const [M, N, K] of [
      [1, 5, 3],
      [2, 37, 40],
      [5, 33, 65],
      [19, 37, 0],
      [130, 200, 2051],
      [7, 4300, 9],
      [120, 1030, 400],
      [60, 1100, 2100],
    ] as const) {
      const [x, w, bias] = [numbers(M * K, 1), numbers(K * N, 2), numbers(N, 3)];
      const residual = misaligned(numbers(M * N, 4), 1);
      for (const [level, precision] of cases)
        for (const activation of ['none', 'relu', 'gelu'] as const) {
          await turn();
          addon.setInstructionSet(level);
          const packed = new Float32Array(addon.packedLength(N, K, precision));
          addon.pack(w, true, packed, N, K, precision);
          const sizes = [M, N, K] as const;
          const ways = (act: typeof activation, added: Float32Array | null) => [
            run((make) =>
              addon.timesWeight(x, w, true, bias, act, added, make(M * N), ...sizes, precision),
            )[0]!,
            run((make) =>
              addon.timesPacked(x, packed, bias, act, added, make(M * N), ...sizes, precision),
            )[0]!,
          ];
          const active = ways('none', null).map((plain) => {
            const y = new Float32Array(M * N);
            if (activation === 'none') y.set(plain);
            else if (activation === 'relu') addon.relu(plain, y, new Uint8Array(M * N));
            else addon.gelu(plain, y);
            return y;
          });
          for (const added of [null, residual])
            ways(activation, added).forEach((found, i) => {
              const expected = added ? active[i]!.map((v, e) => v + added[e]!) : active[i]!;
              const same = Buffer.from(found.buffer).equals(Buffer.from(expected.buffer));
              const what = `${level} ${precision} ${activation} ${sizes.join()} ${added !== null} ${i}`;
              expect(same, what).toBe(true);
            });
        }
    }
  });

  it('a row has the same bits for any number of rows, also for more rows than are packed at a time', async () => {
    const [M, half, N, K] = [100, 50, 40, 50000];
    const [a, b] = [numbers(M * K, 1), numbers(K * N, 2)];
    const product = async (rows: number, from: number, precision: Precision) => {
      await turn();
      const x = a.subarray(from * K, (from + rows) * K);
      return run((make) =>
        addon.gemm(x, false, b, false, null, make(rows * N), 1, rows, N, K, false, false, precision),
      )[0]!;
    };
    for (const [level, precision] of cases) {
      addon.setInstructionSet(level);
      const parts = [...(await product(half, 0, precision)), ...(await product(half, half, precision))];
      expect([...(await product(M, 0, precision))], `${level} ${precision}`).toEqual(parts);
    }
  });

  it('refuses unsupported values, and packed arrays of the wrong size', () => {
    addon.setInstructionSet('portable');
    expect(() => addon.packedLength(1, 1, 'bfloat16')).toThrow(
      'precision: bfloat16 needs a processor with AVX512-BF16 (instruction set avx512bf16), found portable',
    );
    expect(() => addon.packedLength(1, 1, 'float16' as never)).toThrow(
      "expected float32, bfloat16 or int8, found 'float16'",
    );
    const x = new Float32Array(4);
    expect(() => addon.timesPacked(x, x, null, 'none', null, x, 2, 2, 2)).toThrow(
      /packed: expected \d+ elements, found 4/,
    );
    expect(() => addon.timesWeight(x, x, true, null, 'tanh' as never, null, x, 2, 2, 2)).toThrow(
      "activation: expected none, relu or gelu, found 'tanh'",
    );
    expect(() => addon.timesWeight(x, x, true, null, 'none', x.subarray(1), x, 2, 2, 2)).toThrow(
      'residual: expected 4 elements, found 3',
    );
    expect(() => addon.pack(x, false, x, 2, 2)).toThrow(/packed: expected \d+ elements, found 4/);
  });

  describe.each(bfloat16Levels)('bfloat16, %s', (bfloat16Level) => {
    it('rounds to nearest, ties to even; products of two rounded numbers are exact', () => {
      addon.setInstructionSet(bfloat16Level);
      const a = Float32Array.of(
        1,
        1 + 2 ** -8,
        1 + 3 * 2 ** -8,
        1 + 2 ** -8 + 2 ** -20,
        -1 - 2 ** -9,
        3e38,
        1e-30,
      );
      expect([...reference.toBFloat16(a)].slice(0, 5)).toEqual([1, 1, 1 + 2 ** -6, 1 + 2 ** -7, -1]);
      const b = Float32Array.of(1, -1 - 2 ** -8 - 2 ** -22, Math.fround(0.1));
      const [x, y] = [reference.toBFloat16(a), reference.toBFloat16(b)];
      const [c] = run((make) =>
        addon.gemm(a, false, b, false, null, make(21), 1, 7, 3, 1, false, false, 'bfloat16'),
      );
      expect([...c!]).toEqual(
        Array.from({ length: 21 }, (_, e) => Math.fround(x[Math.floor(e / 3)]! * y[e % 3]!)),
      );
    });

    const check = async (M: number, N: number, K: number, aT: boolean, bT: boolean, withBias: boolean) => {
      await turn();
      const a = misaligned(numbers(M * K, 1), 1);
      const b = misaligned(numbers(K * N, 2), 3);
      const bias = withBias ? numbers(N, 3) : null;
      const expected = reference
        .matMul(reference.toBFloat16(a), aT, reference.toBFloat16(b), bT, M, N, K)
        .map((c, i) => c + (bias?.[i % N] ?? 0));
      const [c] = run((make) =>
        addon.gemm(a, aT, b, bT, bias, make(M * N), 1, M, N, K, false, false, 'bfloat16'),
      );
      expectClose(c!, expected, 2e-6 * Math.sqrt(K), `M=${M} N=${N} K=${K} aT=${aT} bT=${bT}`);
    };

    it('odd sizes, all forms', async () => {
      addon.setInstructionSet(bfloat16Level);
      for (const M of sizes)
        for (const N of sizes) await check(M, N, (M * 7 + N) % 65 || 65, M % 2 > 0, N % 3 > 0, M % 3 > 0);
      for (const K of [0, 1, 2, 3, 15, 31, 32, 33, 767, 769, 2047, 2048, 2049, 4099])
        for (const [aT, bT] of forms) await check(19, 37, K, aT, bT, true);
    });

    it('strips of rows, and more than one block of rows and columns', async () => {
      addon.setInstructionSet(bfloat16Level);
      for (const [aT, bT] of forms) await check(123, 70, 2051, aT, bT, true);
      await check(4300, 9, 11, false, true, true);
      await check(9, 4300, 11, true, false, true);
      await check(230, 1030, 70, false, false, false);
    });

    it('float32 on that level is float32 of avx512', () => {
      const [a, b] = [numbers(50 * 70, 1), numbers(70 * 60, 2)];
      const [one, two] = ['avx512', bfloat16Level].map((level) => {
        addon.setInstructionSet(level);
        return run((make) =>
          addon.gemm(a, false, b, false, null, make(3000), 1, 50, 60, 70, false, false),
        )[0]!;
      });
      expect(two).toEqual(one);
    });
  });
});
