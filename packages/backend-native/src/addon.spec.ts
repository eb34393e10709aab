/** Every C++ kernel against a scalar reference, at every instruction-set level of this machine, with 1 and 2 threads. */
import { describe, expect, it } from 'vitest';
import { binaryOps } from './addon';
import * as reference from './scalar-reference';
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
} from './spec-fixtures';

const name = loaded.addon ? 'native addon' : `native addon (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(name, () => {
  it.each([
    ['zero', [0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
    ['ones', [-1, -1, -1, -1], [0xffffffff, 0xffffffff], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
    [
      'pi',
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('philox: the published test vector "%s"', (_name, counter, key, want) => {
    const words = Int32Array.from(counter);
    addon.philox(words, key[0]!, key[1]!);
    expect([...words].map((word) => word >>> 0)).toEqual(want);
    expect(reference.philox(counter, key[0]!, key[1]!)).toEqual(want);
  });

  it('errors name the function, the argument, what was expected and what came', () => {
    const x = new Float32Array(6);
    expect(() => addon.gemm(x, false, x, true, null, x, 1, 2, 2, 2, false, false)).toThrow(
      'native gemm: a must have 4 elements, got 6',
    );
    expect(() => addon.gatherRows(x, Int32Array.of(0, 3), x, 3, 2)).toThrow(
      'native gatherRows: indices[1] must be in 0 … 2, got 3',
    );
    expect(() => addon.crossEntropy(x, Int32Array.of(0, 3), 0, x, x, 2, 3)).toThrow(
      'native crossEntropy: labels[1] must be below 3, got 3',
    );
    expect(() => addon.copy(x, 1, [1], x, 0, [1], [6])).toThrow('element 6 is asked for');
    expect(() => addon.relu(x, Int32Array.of(1) as never)).toThrow('native relu: y must be a Float32Array');
    expect(() => addon.setInstructionSet('none')).toThrow("has no instruction set 'none'");
    expect(() => addon.setThreads(0)).toThrow('count must be in 1 … 1024, got 0');
  });

  // The levels that multiply in bfloat16 have every one of these kernels from avx512.
  describe.each(levels.filter((level) => !bfloat16Levels.includes(level)))('%s', (level) => {
    const at = (title: string, test: () => void) =>
      it(title, () => {
        addon.setInstructionSet(level);
        expect(addon.instructionSet()).toBe(level);
        test();
      });

    const checkGemm = (M: number, N: number, K: number, aT: boolean, bT: boolean, withBias: boolean) => {
      const a = misaligned(numbers(M * K, 1), 1);
      const b = misaligned(numbers(K * N, 2), 3);
      const bias = withBias ? numbers(N, 3) : null;
      const want = reference.matMul(a, aT, b, bT, M, N, K).map((c, i) => c + (bias?.[i % N] ?? 0));
      const [c] = run((make) => addon.gemm(a, aT, b, bT, bias, make(M * N), 1, M, N, K, false, false));
      expectClose(c!, want, 2e-6 * Math.sqrt(K), `M=${M} N=${N} K=${K} aT=${aT} bT=${bT}`);
    };

    at('gemmAdd: the product is added to what is there', () => {
      for (const n of sizes)
        for (const turned of [false, true]) {
          const [M, N, K] = [n, 1 + ((n * 7) % 65), 1 + ((n * 5) % 33)];
          const [a, b, before] = [numbers(M * K, 1), misaligned(numbers(K * N, 2), 3), numbers(M * N, 3)];
          const [c] = run((make) => {
            const y = make(M * N);
            y.set(before);
            addon.gemmAdd(a, b, turned, y, M, N, K);
          });
          const want = reference.matMul(a, false, b, turned, M, N, K).map((v, i) => v + before[i]!);
          expectClose(c!, want, 2e-6 * Math.sqrt(K), `M=${M} N=${N} K=${K}`);
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

    at('gemm over a batch, with one side repeated', () => {
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
          const want = reference.matMul(ai, false, bi, false, M, N, K);
          expectClose(c!.subarray(i * M * N, (i + 1) * M * N), want, 1e-5);
        }
      }
    });

    const checkAttention = (
      size: [B: number, Tq: number, Tk: number, H: number, d: number],
      o: Partial<reference.AttentionCase>,
    ) => {
      const [B, Tq, Tk, H, d] = size;
      const D = H * d;
      const c: reference.AttentionCase = {
        ...{
          B,
          Tq,
          Tk,
          D,
          H,
          scale: d ** -0.5,
          causal: false,
          dropout: 0,
          key0: 11,
          key1: 12,
          keyMask: null,
        },
        ...{ q: misaligned(numbers(B * Tq * D, 6), 1), k: numbers(B * Tk * D, 7), v: numbers(B * Tk * D, 8) },
        ...o,
      };
      const dout = numbers(B * Tq * D, 9);
      const want = reference.attention(c, dout);
      const args = [
        B,
        Tq,
        Tk,
        D,
        H,
        c.scale,
        c.causal,
        c.dropout,
        c.key0,
        c.key1,
        c.q,
        c.k,
        c.v,
        c.keyMask,
      ] as const;
      const [out, lse] = run((make) => addon.attention(...args, make(B * Tq * D), make(B * H * Tq)));
      const where = `[${size}] causal=${c.causal} dropout=${c.dropout}`;
      expectClose(out!, want.out, 3e-6, `out ${where}`);
      expectClose(lse!, want.lse, 3e-6, `lse ${where}`);
      const [dq, dk, dv] = run((make) =>
        addon.attentionGrad(...args, out!, lse!, dout, make(B * Tq * D), make(B * Tk * D), make(B * Tk * D)),
      );
      expectClose(dq!, want.dq, 1e-5, `dq ${where}`);
      expectClose(dk!, want.dk, 1e-5, `dk ${where}`);
      expectClose(dv!, want.dv, 1e-5, `dv ${where}`);
    };

    at('attention: sizes, causal, dropout', () => {
      for (const [Tq, Tk, d] of [
        [1, 1, 1],
        [1, 65, 8],
        [3, 5, 2],
        [17, 17, 16],
        [46, 46, 32],
        [33, 64, 11],
        [65, 65, 5],
      ] as const)
        for (const causal of [false, true])
          for (const dropout of [0, 0.3]) checkAttention([2, Tq, Tk, 3, d], { causal, dropout });
    });

    at('attention: several blocks of queries', () => {
      checkAttention([1, 300, 300, 1, 8], { causal: true });
      checkAttention([1, 150, 700, 1, 3], { dropout: 0.1 });
    });

    at('attention: hidden keys, and queries that see none', () => {
      const keyMask = (B: number, Tk: number) => numbers(B * Tk, 10).map((x) => Number(x > -0.3));
      checkAttention([3, 9, 20, 2, 4], { keyMask: keyMask(3, 20) });
      checkAttention([3, 20, 20, 2, 4], { keyMask: keyMask(3, 20), causal: true, dropout: 0.2 });
      checkAttention([2, 5, 5, 2, 4], {
        keyMask: Float32Array.of(0, 0, 1, 1, 1, 0, 0, 0, 0, 0),
        causal: true,
      });
      checkAttention([2, 9, 4, 1, 4], { causal: true });
    });

    at('layer norm and its gradients', () => {
      for (const [M, N] of [...sizes.map((n) => [3, n]), [1, 768], [201, 192], [65, 5]] as [
        number,
        number,
      ][]) {
        const [x, dy, weight, bias] = [numbers(M * N, 1), numbers(M * N, 2), numbers(N, 3), numbers(N, 4)];
        const eps = 1e-3;
        const [y, mean, rstd] = run((make) =>
          addon.layerNorm(x, weight, bias, eps, make(M * N), make(M), make(M), M, N),
        );
        const wantDw = new Float64Array(N);
        const [want, wantDx, mu, r] = [
          new Float64Array(M * N),
          new Float64Array(M * N),
          new Float64Array(M),
          new Float64Array(M),
        ];
        for (let i = 0; i < M; i++) {
          const row = Array.from(x.subarray(i * N, (i + 1) * N));
          mu[i] = row.reduce((a, b) => a + b) / N;
          r[i] = 1 / Math.sqrt(row.reduce((a, b) => a + (b - mu[i]!) ** 2, 0) / N + eps);
          const n = row.map((v) => (v - mu[i]!) * r[i]!);
          const g = row.map((_, j) => dy[i * N + j]! * weight[j]!);
          const gMean = g.reduce((a, b) => a + b) / N;
          const gnMean = g.reduce((a, b, j) => a + b * n[j]!, 0) / N;
          for (let j = 0; j < N; j++) {
            want[i * N + j] = n[j]! * weight[j]! + bias[j]!;
            wantDx[i * N + j] = r[i]! * (g[j]! - gMean - n[j]! * gnMean);
            wantDw[j]! += dy[i * N + j]! * n[j]!;
          }
        }
        expectClose(mean!, mu, 1e-6);
        expectClose(rstd!, r, 2e-6);
        expectClose(y!, want, 5e-6);
        const [dx] = run((make) => addon.layerNormGradInput(dy, x, weight, mean!, rstd!, make(M * N), M, N));
        expectClose(dx!, wantDx, 2e-5);
        const [dw] = run((make) => addon.layerNormGradWeight(dy, x, mean!, rstd!, make(N), M, N));
        expectClose(dw!, wantDw, 1e-5);
      }
    });

    at('gelu to 4e-7 relative, tails included, and its slope', () => {
      const x = Float32Array.from({ length: 20011 }, (_, i) => (i - 10005) / 1500);
      const dy = numbers(x.length, 3);
      const [y] = run((make) => addon.gelu(x, make(x.length)));
      const [dx] = run((make) => addon.geluGrad(dy, x, make(x.length)));
      x.forEach((v, i) => {
        const want = reference.gelu(v);
        // e^(-x²/2) alone loses x²/2 rounding errors in float32.
        expect(Math.abs(y![i]! - want)).toBeLessThanOrEqual(Math.abs(want) * (4e-7 + 8e-8 * v * v) + 1e-37);
        expect(Math.abs(dx![i]! - dy[i]! * reference.geluSlope(v))).toBeLessThanOrEqual(4e-7);
      });
      const edges = Float32Array.of(0, -0, 20, -20, 1e30, -1e30, Infinity, -Infinity, NaN);
      const [e] = run((make) => addon.gelu(edges, make(9)));
      expect([...e!].map((v) => v + 0)).toEqual([0, 0, 20, 0, edges[4], 0, Infinity, 0, NaN]);
      const [slope] = run((make) => addon.geluGrad(new Float32Array(9).fill(1), edges, make(9)));
      expect([...slope!]).toEqual([
        0.5,
        0.5,
        1,
        expect.closeTo(0, 20),
        1,
        expect.closeTo(0, 20),
        1,
        expect.closeTo(0, 20),
        NaN,
      ]);
    });

    at('relu, dropout, squared sum, sums at every small length', () => {
      for (const n of [...sizes, 8191, 8193, 50001]) {
        const [x, dy] = [misaligned(numbers(n, 5), 1), numbers(n, 6)];
        const [y] = run((make) => addon.relu(x, make(n)));
        expectClose(
          y!,
          x.map((v) => Math.max(v, 0)),
          0,
        );
        const [dx] = run((make) => addon.reluGrad(dy, y!, make(n)));
        expectClose(
          dx!,
          dy.map((v, i) => (x[i]! > 0 ? v : 0)),
          0,
        );
        const [z, sum] = run((make) => {
          addon.dropout(x, make(n), 0.25, 5, 6, false);
          const y = make(n);
          y.set(dy);
          addon.dropout(x, y, 0.25, 5, 6, true);
        });
        const kept = x.map((v, i) => (reference.uniform(i, 5, 6) >= 0.25 ? v / 0.75 : 0));
        expectClose(z!, kept, 1e-6);
        expectClose(
          sum!,
          kept.map((v, i) => v + dy[i]!),
          1e-6,
        );
        const [s] = run((make) => addon.squaredSum([x, dy, x], make(1)));
        expectClose(s!, [[x, dy, x].reduce((sum, y) => sum + y.reduce((a, b) => a + b * b, 0), 0)], 1e-6);
        const [total] = run((make) => addon.sumColumns(x, make(1), 1, n));
        expectClose(total!, [x.reduce((a, b) => a + b, 0)], 1e-5);
      }
      for (const [M, N] of [
        [1, 1],
        [3, 65],
        [200, 17],
        [65, 64],
      ] as const) {
        const x = numbers(M * N, 7);
        const [columns] = run((make) => addon.sumRows(x, make(N), M, N));
        const [rows] = run((make) => addon.sumColumns(x, make(M), M, N));
        const want = [new Float64Array(N), new Float64Array(M)] as const;
        x.forEach((v, i) => ((want[0][i % N]! += v), (want[1][Math.floor(i / N)]! += v)));
        expectClose(columns!, want[0], 1e-5);
        expectClose(rows!, want[1], 1e-5);
      }
    });

    at('binary: broadcasting', () => {
      const ops = [
        (a, b) => a + b,
        (a, b) => a - b,
        (a, b) => a * b,
        (a, b) => a / b,
        Math.max,
        Math.min,
      ] as ((a: number, b: number) => number)[];
      expect(ops.length).toBe(binaryOps.length);
      const [a, b] = [numbers(3 * 70 * 5, 8), numbers(3 * 70 * 5, 9)];
      const shape = [3, 70, 5];
      for (const [sa, sb] of [
        [
          [350, 5, 1],
          [350, 5, 1],
        ],
        [
          [350, 5, 1],
          [0, 0, 1],
        ],
        [
          [350, 5, 1],
          [5, 1, 0],
        ],
        [
          [0, 5, 1],
          [1, 0, 0],
        ],
        [
          [0, 0, 0],
          [70, 1, 0],
        ],
      ] as [number[], number[]][])
        ops.forEach((op, index) => {
          const [y] = run((make) => addon.binary(index, a, sa, b, sb, shape, make(1050)));
          const want = Float32Array.from(y!, (_, e) => {
            const where = [Math.floor(e / 350), Math.floor(e / 5) % 70, e % 5];
            const at = (s: number[]) => where.reduce((sum, w, axis) => sum + w * s[axis]!, 0);
            return op(a[at(sa)]!, b[at(sb)]!);
          });
          expectClose(y!, want, 1e-7, binaryOps[index]);
        });
      const long = numbers(40001, 2);
      const [y] = run((make) => addon.binary(0, long, [1], long, [1], [40001], make(40001)));
      expectClose(
        y!,
        long.map((v) => 2 * v),
        0,
      );
    });

    at('gather and scatter rows', () => {
      for (const D of sizes) {
        const [rows, M] = [7, 50];
        const [x, dy] = [numbers(rows * D, 1), numbers(M * D, 2)];
        const indices = Int32Array.from({ length: M }, (_, i) => (i * i) % 5);
        const [y] = run((make) => addon.gatherRows(x, indices, make(M * D), rows, D));
        expectClose(
          y!,
          Array.from({ length: M * D }, (_, e) => x[indices[Math.floor(e / D)]! * D + (e % D)]!),
          0,
        );
        const [dx] = run((make) => addon.scatterAddRows(dy, indices, make(rows * D), rows, D));
        const want = new Float64Array(rows * D);
        dy.forEach((v, e) => (want[indices[Math.floor(e / D)]! * D + (e % D)]! += v));
        expectClose(dx!, want, 1e-5);
      }
    });

    at('cross-entropy with ignored rows and label smoothing', () => {
      for (const V of [...sizes, 5000])
        for (const s of [0, 0.1]) {
          const M = 6;
          const logits = numbers(M * V, 3).map((v) => v * 20);
          const labels = Int32Array.from({ length: M }, (_, i) => (i === 2 ? -100 : (i * 7) % V));
          const [loss, lse] = run((make) => addon.crossEntropy(logits, labels, s, make(1), make(M), M, V));
          const [grad] = run((make) =>
            addon.crossEntropyGrad(logits, labels, lse!, Float32Array.of(2), s, make(M * V), M, V),
          );
          let sum = 0;
          const want = new Float64Array(M * V);
          for (let i = 0; i < M; i++) {
            const row = logits.subarray(i * V, (i + 1) * V);
            const largest = Math.max(...row);
            const l = largest + Math.log(row.reduce((a, b) => a + Math.exp(b - largest), 0));
            expectClose([lse![i]!], [l], 1e-6);
            if (labels[i]! < 0) continue;
            row.forEach((v, j) => {
              const target = (j === labels[i] ? 1 - s : 0) + s / V;
              sum -= (target * (v - l)) / (M - 1);
              want[i * V + j] = ((Math.exp(v - l) - target) * 2) / (M - 1);
            });
          }
          expectClose(loss!, [sum], 2e-6);
          expectClose(grad!, want, 2e-6);
        }
      const [loss] = run((make) =>
        addon.crossEntropy(numbers(6, 1), Int32Array.of(-1, -1), 0, make(1), make(2), 2, 3),
      );
      expect(loss![0]).toBeNaN();
    });

    const checkLinearLoss = (M: number, D: number, V: number, s: number) => {
      const [x, weight] = [misaligned(numbers(M * D, 3), 1), misaligned(numbers(V * D, 4), 3)];
      const labels = Int32Array.from({ length: M }, (_, i) => (i % 4 === 2 ? -100 : (i * 37) % V));
      const counted = labels.filter((label) => label >= 0).length;
      const logits = reference.matMul(x, false, weight, true, M, V, D);
      const d = new Float64Array(M * V);
      const wantLse = new Float64Array(M);
      let wantLoss = 0;
      for (let i = 0; i < M; i++) {
        const row = logits.subarray(i * V, (i + 1) * V);
        const top = row.reduce((a, b) => Math.max(a, b), -Infinity);
        const l = (wantLse[i] = top + Math.log(row.reduce((a, b) => a + Math.exp(b - top), 0)));
        if (labels[i]! < 0) continue;
        row.forEach((v, j) => {
          const target = (j === labels[i] ? 1 - s : 0) + s / V;
          wantLoss -= (target * (v - l)) / counted;
          d[i * V + j] = ((Math.exp(v - l) - target) * 2) / counted;
        });
      }
      const given = [x, weight, labels, s] as const;
      const [loss, lse] = run((make) => addon.linearCrossEntropy(...given, make(1), make(M), M, D, V));
      const grads = run((make) => {
        const rest = [lse!, Float32Array.of(2)] as const;
        addon.linearCrossEntropyGradInput(...given, ...rest, make(M * D), M, D, V);
        addon.linearCrossEntropyGradWeight(...given, ...rest, make(V * D), M, D, V);
      });
      const what = `M=${M} D=${D} V=${V} s=${s}`;
      expectClose(lse!, wantLse, 3e-6, what);
      expectClose(loss!, [wantLoss], 3e-6, what);
      const d32 = Float32Array.from(d);
      expectClose(grads[0]!, reference.matMul(d32, false, weight, false, M, D, V), 4e-6, `dx ${what}`);
      expectClose(grads[1]!, reference.matMul(d32, true, x, false, V, D, M), 4e-6, `dweight ${what}`);
    };

    at('cross-entropy of a product, in one and in many blocks of columns', () => {
      for (const n of sizes)
        for (const s of [0, 0.1]) checkLinearLoss(n, 1 + ((n * 7) % 33), (n * 3) % 66, s);
      for (const s of [0, 0.1]) checkLinearLoss(6, 5, 9000, s);
      checkLinearLoss(2100, 3, 1100, 0.1);
      const none = run((make) =>
        addon.linearCrossEntropy(
          ...([numbers(4, 1), numbers(6, 2), Int32Array.of(-1, -1), 0] as const),
          ...([make(1), make(2), 2, 2, 3] as const),
        ),
      );
      expect(none[0]![0]).toBeNaN();
    });

    at('AdamW', () => {
      for (const n of [...sizes, 40000]) {
        const [p, g, m] = [numbers(n, 1), numbers(n, 2), numbers(n, 3)];
        const v = numbers(n, 4).map(Math.abs);
        const h = [1e-2, 0.9, 0.98, 1e-8, 1 - 0.9 ** 3, 1 - 0.98 ** 3] as const;
        const made = run((make) =>
          addon.adamW([p, g, m, v], [make(n), make(n), make(n)], Float32Array.of(0.5), [0.1], ...h),
        );
        const wantM = m.map((mi, i) => 0.9 * mi + 0.1 * g[i]! * 0.5);
        const wantV = v.map((vi, i) => 0.98 * vi + 0.02 * (g[i]! * 0.5) ** 2);
        const wantP = p.map(
          (pi, i) => pi * (1 - 1e-3) - ((1e-2 / h[4]) * wantM[i]!) / (Math.sqrt(wantV[i]! / h[5]) + 1e-8),
        );
        [wantP, wantM, wantV].forEach((want, i) => expectClose(made[i]!, want, 1e-6));
      }
    });

    at('AdamW of a list: the bits of one tensor at a time, however the list is cut', () => {
      const h = [1e-2, 0.9, 0.98, 1e-8, 0.1, 0.04] as const;
      const lengths = [...sizes, 0, 40000, 3, 16384, 5];
      const parts = (n: number, i: number) =>
        [1, 2, 3, 4].map((seed) =>
          misaligned(numbers(n, seed + 9 * i), i % 4).map(seed === 4 ? Math.abs : (x) => x),
        );
      const tensors = lengths.map(parts);
      const decays = lengths.map((_, i) => (i % 3) / 10);
      const scale = Float32Array.of(0.5);
      const update = (list: Float32Array[], decay: number[], make: (n: number) => Float32Array) => {
        const made = list.flatMap((x, i) => (i % 4 === 1 ? [] : [make(x.length)]));
        addon.adamW(list, made, scale, decay, ...h);
        return made;
      };
      const together = run((make) => update(tensors.flat(), decays, make));
      const apart = tensors.flatMap((list, i) => update(list, [decays[i]!], (n) => new Float32Array(n)));
      const bytes = (x: Float32Array) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
      expect(together.length).toBe(apart.length);
      together.forEach((x, i) => expect(bytes(x).equals(bytes(apart[i]!)), `result ${i}`).toBe(true));
      expect(() => addon.adamW(tensors[0]!, [], scale, [0], ...h)).toThrow('made must have 3 entries, got 0');
    });
  });
});
