/** Matmul in float32 compared with a scalar reference. */
import * as reference from '../spec/scalar-reference';
import { addon, atEveryLevel, expectClose, misaligned, numbers, run, sizes } from '../spec/fixtures';

atEveryLevel('products', (at) => {
  const checkGemm = (M: number, N: number, K: number, aT: boolean, bT: boolean, withBias: boolean) => {
    const a = misaligned(numbers(M * K, 1), 1);
    const b = misaligned(numbers(K * N, 2), 3);
    const bias = withBias ? numbers(N, 3) : null;
    const expected = reference.matMul(a, aT, b, bT, M, N, K).map((c, i) => c + (bias?.[i % N] ?? 0));
    const [c] = run((make) => addon.gemm(a, aT, b, bT, bias, make(M * N), 1, M, N, K, false, false));
    expectClose(c!, expected, 2e-6 * Math.sqrt(K), `M=${M} N=${N} K=${K} aT=${aT} bT=${bT}`);
  };

  at('gemmAdd: adds to the existing values', () => {
    for (const n of sizes)
      for (const transposed of [false, true]) {
        const [M, N, K] = [n, 1 + ((n * 7) % 65), 1 + ((n * 5) % 33)];
        const [a, b, before] = [numbers(M * K, 1), misaligned(numbers(K * N, 2), 3), numbers(M * N, 3)];
        const [c] = run((make) => {
          const y = make(M * N);
          y.set(before);
          addon.gemmAdd(a, b, transposed, y, M, N, K);
        });
        const expected = reference.matMul(a, false, b, transposed, M, N, K).map((v, i) => v + before[i]!);
        expectClose(c!, expected, 2e-6 * Math.sqrt(K), `M=${M} N=${N} K=${K}`);
      }
  });

  at('gemm at odd sizes, all forms', () => {
    for (const M of sizes)
      for (const N of sizes) checkGemm(M, N, (M * 7 + N) % 65 || 65, M % 2 > 0, N % 3 > 0, M % 3 > 0);
    for (const K of [0, 1, 2, 15, 16, 17, 383, 384, 385, 1023, 1024, 1025, 2050])
      for (const [aT, bT] of [
        [false, false],
        [false, true],
        [true, false],
        [true, true],
      ] as const)
        checkGemm(19, 37, K, aT, bT, true);
  });

  at('gemm beyond one block of rows and columns', () => {
    checkGemm(4300, 9, 11, false, true, true);
    checkGemm(4300, 9, 11, true, false, true);
    checkGemm(9, 4300, 11, false, true, true);
    checkGemm(2, 300, 1000, false, true, true);
    checkGemm(230, 530, 70, false, false, false);
  });

  at('gemm over a batch, with one operand repeated', () => {
    const [B, M, N, K] = [3, 5, 6, 7];
    const a = numbers(B * M * K, 4);
    const b = numbers(B * K * N, 5);
    for (const [aRepeats, bRepeats] of [
      [false, false],
      [true, false],
      [false, true],
    ] as const) {
      const [x, y] = [
        a.subarray(0, aRepeats ? M * K : undefined),
        b.subarray(0, bRepeats ? K * N : undefined),
      ];
      const [c] = run((make) =>
        addon.gemm(x, false, y, false, null, make(B * M * N), B, M, N, K, aRepeats, bRepeats),
      );
      for (let i = 0; i < B; i++) {
        const [ai, bi] = [a.subarray(aRepeats ? 0 : i * M * K), b.subarray(bRepeats ? 0 : i * K * N)];
        const expected = reference.matMul(ai, false, bi, false, M, N, K);
        expectClose(c!.subarray(i * M * N, (i + 1) * M * N), expected, 1e-5);
      }
    }
  });
});
