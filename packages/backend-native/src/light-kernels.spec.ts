/** Norms, activations, sums, broadcasting, gathering and scattering of rows, compared with scalar loops. */
import { expect } from 'vitest';
import { binaryOps } from './addon';
import * as reference from '../spec/scalar-reference';
import { addon, atEveryLevel, expectClose, misaligned, numbers, run, sizes } from '../spec/fixtures';

atEveryLevel('light kernels', (at) => {
  at('layer norm and its gradients', () => {
    for (const [M, N] of [...sizes.map((n) => [3, n]), [1, 768], [201, 192], [65, 5]] as [number, number][]) {
      const [x, dy, weight, bias] = [numbers(M * N, 1), numbers(M * N, 2), numbers(N, 3), numbers(N, 4)];
      const eps = 1e-3;
      const [y, mean, rstd] = run((make) =>
        addon.layerNorm(x, weight, bias, eps, make(M * N), make(M), make(M), M, N),
      );
      const wantDw = new Float64Array(N);
      const [expected, wantDx, mu, r] = [
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
          expected[i * N + j] = n[j]! * weight[j]! + bias[j]!;
          wantDx[i * N + j] = r[i]! * (g[j]! - gMean - n[j]! * gnMean);
          wantDw[j]! += dy[i * N + j]! * n[j]!;
        }
      }
      expectClose(mean!, mu, 1e-6);
      expectClose(rstd!, r, 2e-6);
      expectClose(y!, expected, 5e-6);
      const [dx] = run((make) => addon.layerNormGradInput(dy, x, weight, mean!, rstd!, make(M * N), M, N));
      expectClose(dx!, wantDx, 2e-5);
      const [dw] = run((make) => addon.layerNormGradWeight(dy, x, mean!, rstd!, make(N), M, N));
      expectClose(dw!, wantDw, 1e-5);
    }
  });

  at('RMSNorm and its gradients: layer norm without bias and mean', () => {
    for (const [M, N] of [...sizes.map((n) => [3, n]), [1, 768], [201, 192], [65, 5]] as [number, number][]) {
      const [x, dy, weight] = [numbers(M * N, 1), numbers(M * N, 2), numbers(N, 3)];
      const eps = 1e-3;
      const [y, rstd] = run((make) =>
        addon.layerNorm(x, weight, null, eps, make(M * N), null, make(M), M, N),
      );
      const expected = { y: x.slice(), rstd: new Float64Array(M), dx: x.slice(), dw: new Float64Array(N) };
      for (let i = 0; i < M; i++) {
        const row = Array.from(x.subarray(i * N, (i + 1) * N));
        const r = 1 / Math.sqrt(row.reduce((a, b) => a + b * b, 0) / N + eps);
        const gnMean = row.reduce((a, v, j) => a + dy[i * N + j]! * weight[j]! * v * r, 0) / N;
        expected.rstd[i] = r;
        row.forEach((v, j) => {
          expected.y[i * N + j] = v * r * weight[j]!;
          expected.dx[i * N + j] = r * (dy[i * N + j]! * weight[j]! - v * r * gnMean);
          expected.dw[j]! += dy[i * N + j]! * v * r;
        });
      }
      expectClose(rstd!, expected.rstd, 2e-6);
      expectClose(y!, expected.y, 5e-6);
      const [dx] = run((make) => addon.layerNormGradInput(dy, x, weight, null, rstd!, make(M * N), M, N));
      expectClose(dx!, expected.dx, 2e-5);
      const [dw] = run((make) => addon.layerNormGradWeight(dy, x, null, rstd!, make(N), M, N));
      expectClose(dw!, expected.dw, 1e-5);
    }
  });

  at('gated GELU within 6e-7, and its gradients', () => {
    for (const n of [...sizes, 20011]) {
      const gate = misaligned(
        Float32Array.from({ length: n }, (_, i) => (i - n / 2) * (20 / Math.max(n, 20))),
        1,
      );
      const [x, dy] = [numbers(n, 3), numbers(n, 4)];
      const [y] = run((make) => addon.gatedGelu(gate, x, make(n)));
      const [dgate, dx] = run((make) => addon.gatedGeluGrad(dy, gate, x, make(n), make(n)));
      expectClose(
        y!,
        x.map((v, i) => reference.tanhGelu(gate[i]!) * v),
        6e-7,
      );
      expectClose(
        dx!,
        dy.map((d, i) => d * reference.tanhGelu(gate[i]!)),
        6e-7,
      );
      expectClose(
        dgate!,
        dy.map((d, i) => d * x[i]! * reference.tanhGeluSlope(gate[i]!)),
        6e-7,
      );
    }
    const edges = Float32Array.of(0, 20, -20, 1e30, -1e30, Infinity, -Infinity, NaN);
    const ones = edges.map(() => 1);
    const [y] = run((make) => addon.gatedGelu(edges, ones, make(8)));
    expect([...y!]).toEqual([0, 20, 0, edges[3], 0, Infinity, 0, NaN]);
    const [slope] = run((make) => addon.gatedGeluGrad(ones, edges, ones, make(8), make(8)));
    const none = expect.closeTo(0, 20) as number;
    expect([...slope!]).toEqual([0.5, 1, none, 1, none, 1, none, NaN]);
  });

  at('GELU within a relative error of 4e-7, also in the tails, and its slope', () => {
    const x = Float32Array.from({ length: 20011 }, (_, i) => (i - 10005) / 1500);
    const dy = numbers(x.length, 3);
    const [y] = run((make) => addon.gelu(x, make(x.length)));
    const [dx] = run((make) => addon.geluGrad(dy, x, make(x.length)));
    x.forEach((v, i) => {
      const expected = reference.gelu(v);
      // The error of e^(-x²/2) alone is x²/2 rounding errors in float32.
      expect(Math.abs(y![i]! - expected)).toBeLessThanOrEqual(
        Math.abs(expected) * (4e-7 + 8e-8 * v * v) + 1e-37,
      );
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
      const positive = new Uint8Array(n + 1).fill(7).subarray(1);
      const [y] = run((make) => addon.relu(x, make(n), positive));
      expectClose(
        y!,
        x.map((v) => Math.max(v, 0)),
        0,
      );
      expect(positive.every((flag, i) => flag === (x[i]! > 0 ? 1 : 0))).toBe(true);
      const [dx] = run((make) => addon.reluGrad(dy, positive, make(n)));
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
      const expected = [new Float64Array(N), new Float64Array(M)] as const;
      x.forEach((v, i) => ((expected[0][i % N]! += v), (expected[1][Math.floor(i / N)]! += v)));
      expectClose(columns!, expected[0], 1e-5);
      expectClose(rows!, expected[1], 1e-5);
    }
  });

  at('binary: broadcasting', () => {
    const ops = [(a, b) => a + b, (a, b) => a - b, (a, b) => a * b, (a, b) => a / b, Math.max, Math.min] as ((
      a: number,
      b: number,
    ) => number)[];
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
        const expected = Float32Array.from(y!, (_, e) => {
          const where = [Math.floor(e / 350), Math.floor(e / 5) % 70, e % 5];
          const at = (s: number[]) => where.reduce((sum, w, axis) => sum + w * s[axis]!, 0);
          return op(a[at(sa)]!, b[at(sb)]!);
        });
        expectClose(y!, expected, 1e-7, binaryOps[index]);
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
      const expected = new Float64Array(rows * D);
      dy.forEach((v, e) => (expected[indices[Math.floor(e / D)]! * D + (e % D)]! += v));
      expectClose(dx!, expected, 2e-7);
    }
    const M = 100_003; // one row, very often
    const [dx] = run((make) =>
      addon.scatterAddRows(new Float32Array(M).fill(0.1), new Int32Array(M), make(2), 2, 1),
    );
    expectClose(dx!, [M * Math.fround(0.1), 0], 1e-7);
  });
});
