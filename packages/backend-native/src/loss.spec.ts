/** Cross-entropy of logits and of a linear layer, compared with scalar loops. */
import { expect } from 'vitest';
import * as reference from '../spec/scalar-reference';
import { addon, atEveryLevel, expectClose, misaligned, numbers, run, sizes } from '../spec/fixtures';

atEveryLevel('losses', (at) => {
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
        const expected = new Float64Array(M * V);
        for (let i = 0; i < M; i++) {
          const row = logits.subarray(i * V, (i + 1) * V);
          const largest = Math.max(...row);
          const l = largest + Math.log(row.reduce((a, b) => a + Math.exp(b - largest), 0));
          expectClose([lse![i]!], [l], 1e-6);
          if (labels[i]! < 0) continue;
          row.forEach((v, j) => {
            const target = (j === labels[i] ? 1 - s : 0) + s / V;
            sum -= (target * (v - l)) / (M - 1);
            expected[i * V + j] = ((Math.exp(v - l) - target) * 2) / (M - 1);
          });
        }
        expectClose(loss!, [sum], 2e-6);
        expectClose(grad!, expected, 2e-6);
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

  at('cross-entropy of a linear layer, in one and in many blocks of columns', () => {
    for (const n of sizes) for (const s of [0, 0.1]) checkLinearLoss(n, 1 + ((n * 7) % 33), (n * 3) % 66, s);
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
});
