import { beforeAll, describe, expect, it } from 'vitest';
import { gradientError } from './finite-difference';
import {
  add,
  adamW,
  attention,
  availableBackends,
  checkpoint,
  clipScale,
  concat,
  crossEntropy,
  dispose,
  div,
  doraNorm,
  dropout,
  embedding,
  exp,
  fold,
  gatherRows,
  gelu,
  globalNorm,
  layerNorm,
  linear,
  linearCrossEntropy,
  log,
  max,
  mean,
  memory,
  mul,
  normal,
  relu,
  reshape,
  rngKey,
  scale,
  slice,
  split,
  sqrt,
  sub,
  sum,
  tensor,
  tidy,
  tile,
  transpose,
  uniform,
  useBackend,
  valueAndGrads,
  variable,
} from './index';
import type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor3D } from './index';

const backends = await availableBackends();

/** A reproducible tensor of unit scale. */
function random<T extends Tensor = Tensor>(name: string, ...shape: number[]): T {
  return tensor(
    normal(
      fold(rngKey(7), name),
      shape.reduce((a, b) => a * b, 1),
    ),
    shape,
  ) as T;
}

async function expectClose(x: Tensor, values: ArrayLike<number>, tolerance = 1e-5): Promise<void> {
  const got = await x.data();
  expect(got.length).toBe(values.length);
  let worst = 0;
  for (let i = 0; i < got.length; i++)
    worst = Math.max(worst, Math.abs(got[i] - values[i]) / Math.max(1, Math.abs(values[i])));
  expect(worst).toBeLessThan(tolerance);
}

const fdTolerance = 2e-3; // float32 central differences with ε = 1e-2 leave about 1e-4 of rounding

/** Plain loops in float64: the oracle for attention's values. */
function attentionOracle(
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  s: { B: number; Tq: number; Tk: number; D: number; H: number; causal: boolean; mask?: number[] },
): number[] {
  const { B, Tq, Tk, D, H } = s;
  const d = D / H;
  const out = new Array<number>(B * Tq * D).fill(0);
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let i = 0; i < Tq; i++) {
        const seen = Array.from({ length: Tk }, (_, j) => j).filter(
          (j) => (!s.causal || j <= i + Tk - Tq) && (!s.mask || s.mask[b * Tk + j] === 1),
        );
        const score = seen.map((j) => {
          let dot = 0;
          for (let c = 0; c < d; c++)
            dot += q[(b * Tq + i) * D + h * d + c] * k[(b * Tk + j) * D + h * d + c];
          return dot / Math.sqrt(d);
        });
        const top = Math.max(...score);
        const total = score.reduce((t, x) => t + Math.exp(x - top), 0);
        seen.forEach((j, n) => {
          for (let c = 0; c < d; c++)
            out[(b * Tq + i) * D + h * d + c] +=
              (Math.exp(score[n] - top) / total) * v[(b * Tk + j) * D + h * d + c];
        });
      }
  return out;
}

describe.each(backends)('ops on %s', (backend) => {
  beforeAll(async () => {
    await useBackend(backend);
  });

  it('linear: values at odd sizes', async () => {
    for (const [M, K, N] of [
      [1, 1, 1],
      [2, 3, 5],
      [7, 17, 9],
      [33, 65, 31],
    ]) {
      const [x, w, b] = [
        random(`x${M}`, M, K),
        random<Tensor2D>(`w${M}`, N, K),
        random<Tensor1D>(`b${M}`, N),
      ];
      const [xs, ws, bs] = (await Promise.all([x.data(), w.data(), b.data()])) as Float32Array[];
      const want = Array.from({ length: M * N }, (_, e) => {
        const [m, n] = [Math.floor(e / N), e % N];
        let y = bs[n];
        for (let c = 0; c < K; c++) y += xs[m * K + c] * ws[n * K + c];
        return y;
      });
      await expectClose(
        tidy(() => linear({ weight: w, bias: b }, x)),
        want,
      );
    }
  });

  it('linear: gradients, with and without bias and adapter, over leading dimensions', async () => {
    const [x, w, b] = [random('x', 2, 3, 5), random<Tensor2D>('w', 4, 5), random<Tensor1D>('b', 4)];
    const [A, B] = [random<Tensor2D>('A', 2, 5), random<Tensor2D>('B', 4, 2)];
    expect(
      await gradientError(
        (x, weight, bias) => linear({ weight: weight as Tensor2D, bias: bias as Tensor1D }, x),
        [x, w, b],
      ),
    ).toBeLessThan(fdTolerance);
    const adapted = (x: Tensor, A: Tensor, B: Tensor) =>
      linear(
        {
          weight: w,
          lora: {
            lora_A: { weight: A as Tensor2D },
            lora_B: { weight: B as Tensor2D },
            scaling: 2,
            dropout: 0.3,
          },
        },
        x,
        rngKey(3),
      );
    expect(await gradientError(adapted, [x, A, B])).toBeLessThan(fdTolerance);
  });

  it('linear with an adapter: what its parts give, in value and all gradients, at odd sizes', async () => {
    for (const [M, inp, out, r, rate] of [
      [1, 1, 1, 1, 0],
      [3, 5, 4, 2, 0.3],
      [17, 33, 9, 3, 0.5],
      [65, 31, 64, 16, 0],
      [33, 64, 65, 8, 0.1],
    ]) {
      const [x, weight] = [random('x', M, 2, inp), random<Tensor2D>('w', out, inp)];
      const [bias, A, B] = [
        random<Tensor1D>('b', out),
        random<Tensor2D>('A', r, inp),
        random<Tensor2D>('B', out, r),
      ];
      const key = rngKey(M);
      const fused = (x: Tensor, weight: Tensor, bias: Tensor, A: Tensor, B: Tensor) =>
        linear(
          {
            ...({ weight, bias } as { weight: Tensor2D; bias: Tensor1D }),
            lora: {
              lora_A: { weight: A as Tensor2D },
              lora_B: { weight: B as Tensor2D },
              scaling: 1.7,
              dropout: rate,
            },
          },
          x,
          key,
        );
      const parts = (x: Tensor, weight: Tensor, bias: Tensor, A: Tensor, B: Tensor) => {
        const low = linear({ weight: A as Tensor2D }, dropout(x, rate, key));
        const base = linear({ weight: weight as Tensor2D, bias: bias as Tensor1D }, x);
        return add(base, scale(linear({ weight: B as Tensor2D }, low), 1.7));
      };
      const xs = [x, weight, bias, A, B] as const;
      const dy = random('dy', M, 2, out);
      const [got, want] = [fused, parts].map((f) =>
        valueAndGrads(() => sum(mul(f(...xs), dy)) as Scalar, [...xs]),
      );
      const y = tidy(() => parts(...xs));
      await expectClose(
        tidy(() => fused(...xs)),
        await y.data(),
        3e-5,
      );
      for (const i of xs.keys()) await expectClose(got.grads[i], await want.grads[i].data(), 1e-4);
      dispose([got, want, y]);
    }
  });

  it('linear with DoRA: values in training mode, and gradients that take the norms as constant', async () => {
    const [x, w, b] = [random('x', 3, 4), random<Tensor2D>('w', 5, 4), random<Tensor1D>('b', 5)];
    const [A, B, m] = [random<Tensor2D>('A', 2, 4), random<Tensor2D>('B', 5, 2), random<Tensor1D>('m', 5)];
    const part = (m: Tensor1D) => ({
      lora_A: { weight: A },
      lora_B: { weight: B },
      lora_magnitude_vector: m,
      scaling: 2,
      dropout: 0.3,
    });
    const key = rngKey(3);
    const norm = doraNorm(w, part(m));
    // (Liu et al. 2024), as PEFT does it in training: y = Wx + b + (m/n − 1)·W·drop(x) + (m/n)·s·BA·drop(x).
    const byHand = (x: Tensor, m: Tensor, norm: Tensor) => {
      const dropped = dropout(x, 0.3, key);
      const ratio = div(m, norm);
      const low = scale(linear({ weight: B }, linear({ weight: A }, dropped)), 2);
      const plain = linear({ weight: w }, dropped);
      return add(
        add(linear({ weight: w, bias: b }, x), mul(sub(ratio, tensor([1], [1])), plain)),
        mul(ratio, low),
      );
    };
    const ours = (x: Tensor, m: Tensor) => linear({ weight: w, bias: b, lora: part(m as Tensor1D) }, x, key);
    await expectClose(ours(x, m), [...(await byHand(x, m, norm).data())]);
    expect(await gradientError(ours, [x, m])).toBeLessThan(fdTolerance);
    const grads = (f: (x: Tensor, m: Tensor) => Tensor) =>
      valueAndGrads(() => sum(mul(f(x, m), random('dy', 3, 5))) as Scalar, [A, B, m]).grads;
    const [got, want] = [grads(ours), grads((x, m) => byHand(x, m, norm))];
    for (const [i, grad] of got.entries()) await expectClose(grad, [...(await want[i].data())]);
  });

  it('linear: says what it expected', () => {
    expect(() => linear({ weight: random<Tensor2D>('w', 4, 5) }, random('x', 2, 6))).toThrow(
      /\[4,5\].*width 5.*\[2,6\]/,
    );
  });

  it('layerNorm: values and gradients', async () => {
    const [x, w, b] = [random('x', 3, 2, 7), random<Tensor1D>('w', 7), random<Tensor1D>('b', 7)];
    const [xs, ws, bs] = (await Promise.all([x.data(), w.data(), b.data()])) as Float32Array[];
    const want = Array.from({ length: 6 }, (_, m) => {
      const row = [...xs.subarray(m * 7, m * 7 + 7)];
      const mu = row.reduce((a, c) => a + c, 0) / 7;
      const variance = row.reduce((a, c) => a + (c - mu) ** 2, 0) / 7;
      return row.map((c, i) => ((c - mu) / Math.sqrt(variance + 1e-3)) * ws[i] + bs[i]);
    }).flat();
    await expectClose(
      tidy(() => layerNorm({ weight: w, bias: b }, x, 1e-3)),
      want,
    );
    const f = (x: Tensor, weight: Tensor, bias: Tensor) =>
      layerNorm({ weight: weight as Tensor1D, bias: bias as Tensor1D }, x, 1e-3);
    expect(await gradientError(f, [x, w, b])).toBeLessThan(fdTolerance);
  });

  it('gelu and relu: values and gradients', async () => {
    const x = tensor([-6, -3, -1.5, -0.5, 0.25, 0.5, 1, 4], [2, 4]);
    // x·Φ(x) from a float64 evaluation of the error function
    const want = [
      -5.919653e-9, -0.004049694, -0.1002108, -0.15426877, 0.14967659, 0.34573123, 0.84134475, 3.9998733,
    ];
    await expectClose(
      tidy(() => gelu(x)),
      want,
      3e-6,
    );
    expect(await gradientError((x) => gelu(x), [x])).toBeLessThan(fdTolerance);
    await expectClose(
      tidy(() => relu(x)),
      [0, 0, 0, 0, 0.25, 0.5, 1, 4],
    );
    expect(await gradientError((x) => relu(x), [x])).toBeLessThan(fdTolerance);
  });

  it.each([
    { name: 'plain', Tq: 5, Tk: 5, causal: false },
    { name: 'causal', Tq: 5, Tk: 5, causal: true },
    { name: 'cross', Tq: 3, Tk: 9, causal: false },
    { name: 'one query with a cache', Tq: 1, Tk: 6, causal: true },
    { name: 'masked and causal', Tq: 4, Tk: 6, causal: true, mask: [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1] },
  ])('attention, $name: values and gradients', async ({ Tq, Tk, causal, mask }) => {
    const [B, D, H] = [2, 6, 2];
    const [q, k, v] = [
      random<Tensor3D>('q', B, Tq, D),
      random<Tensor3D>('k', B, Tk, D),
      random<Tensor3D>('v', B, Tk, D),
    ];
    const keyMask = mask && (tensor(mask, [B, Tk]) as Tensor2D);
    const f = (q: Tensor, k: Tensor, v: Tensor) =>
      attention(q as Tensor3D, k as Tensor3D, v as Tensor3D, { numHeads: H, causal, keyMask });
    const [qs, ks, vs] = (await Promise.all([q.data(), k.data(), v.data()])) as Float32Array[];
    await expectClose(
      tidy(() => f(q, k, v)),
      attentionOracle(qs, ks, vs, { B, Tq, Tk, D, H, causal, mask }),
    );
    expect(await gradientError(f, [q, k, v])).toBeLessThan(fdTolerance);
  });

  it('attention: a query that sees nothing yields 0 and moves nothing', async () => {
    const [q, k, v] = [
      random<Tensor3D>('q', 1, 2, 4),
      random<Tensor3D>('k', 1, 2, 4),
      random<Tensor3D>('v', 1, 2, 4),
    ];
    const keyMask = tensor([0, 1], [1, 2]) as Tensor2D;
    const f = (q: Tensor, k: Tensor, v: Tensor) =>
      attention(q as Tensor3D, k as Tensor3D, v as Tensor3D, { numHeads: 2, causal: true, keyMask });
    const out = await tidy(() => f(q, k, v)).data();
    expect([...out.slice(0, 4)]).toEqual([0, 0, 0, 0]);
    expect([...out.slice(4)]).toEqual([...(await v.data()).slice(4)]);
    expect(await gradientError(f, [q, k, v])).toBeLessThan(fdTolerance);
  });

  it('attention: dropped probabilities have the gradient of what was computed', async () => {
    const [q, k, v] = [
      random<Tensor3D>('q', 2, 3, 4),
      random<Tensor3D>('k', 2, 5, 4),
      random<Tensor3D>('v', 2, 5, 4),
    ];
    const f = (q: Tensor, k: Tensor, v: Tensor) =>
      attention(q as Tensor3D, k as Tensor3D, v as Tensor3D, {
        numHeads: 2,
        dropout: { rate: 0.4, key: rngKey(5) },
      });
    expect(await gradientError(f, [q, k, v])).toBeLessThan(fdTolerance);
  });

  it('embedding and gatherRows: values, repeated rows in the gradient, range check', async () => {
    const table = random<Tensor2D>('table', 5, 3);
    const rows = await table.data();
    const ids = new Int32Array([4, 0, 4, 2]);
    await expectClose(
      tidy(() => embedding({ weight: table }, ids, [2, 2])),
      [...ids].flatMap((i) => [...rows.slice(i * 3, i * 3 + 3)]),
    );
    expect(await gradientError((t) => gatherRows(t, ids), [table])).toBeLessThan(fdTolerance);
    expect(() => gatherRows(table, new Int32Array([5]))).toThrow(/index 5 .*5 rows/);
  });

  it('crossEntropy: ignores negative labels, smooths, and has the right gradient', async () => {
    const logits = random<Tensor2D>('logits', 4, 6);
    const labels = new Int32Array([2, -100, 5, 0]);
    const xs = await logits.data();
    const rows = [...labels].flatMap((label, m) => {
      if (label < 0) return [];
      const row = [...xs.slice(m * 6, m * 6 + 6)];
      const lse = Math.log(row.reduce((a, x) => a + Math.exp(x), 0));
      return [0.9 * (lse - row[label]) + (0.1 / 6) * row.reduce((a, x) => a + lse - x, 0)];
    });
    await expectClose(
      tidy(() => crossEntropy(logits, labels, 0.1)),
      [rows.reduce((a, x) => a + x, 0) / rows.length],
    );
    expect(await gradientError((x) => crossEntropy(x as Tensor2D, labels, 0.1), [logits])).toBeLessThan(
      fdTolerance,
    );
    expect(() => crossEntropy(logits, new Int32Array(4).fill(-100))).toThrow(/no row is labelled/);
    expect(() => crossEntropy(logits, new Int32Array([6, 0, 0, 0]))).toThrow(/label 6 .*vocabulary of 6/);
  });

  it('linearCrossEntropy: crossEntropy of linear, in value and gradients, at odd sizes', async () => {
    for (const [M, D, V] of [
      [1, 1, 2],
      [2, 3, 5],
      [7, 17, 33],
      [65, 9, 64],
      [5, 8, 700],
    ]) {
      const [x, weight] = [random<Tensor2D>(`x${M}`, M, D), random<Tensor2D>(`w${M}`, V, D)];
      const labels = Int32Array.from({ length: M }, (_, i) => (i % 3 === 1 ? -100 : (i * 5) % V));
      for (const smoothing of [0, 0.1]) {
        const fused = (x: Tensor, w: Tensor) =>
          linearCrossEntropy({ weight: w as Tensor2D }, x as Tensor2D, labels, smoothing);
        const plain = (x: Tensor, w: Tensor) =>
          crossEntropy(linear({ weight: w as Tensor2D }, x as Tensor2D), labels, smoothing);
        const [got, want] = [fused, plain].map((f) => valueAndGrads(() => f(x, weight), [x, weight]));
        await expectClose(got.value, await want.value.data());
        for (const i of [0, 1]) await expectClose(got.grads[i], await want.grads[i].data());
        if (M < 60) expect(await gradientError(fused, [x, weight])).toBeLessThan(fdTolerance);
        dispose([got, want]);
      }
    }
  });

  it('linearCrossEntropy: a frozen weight gets no gradient, a bias or adapter takes the long way', async () => {
    const [x, weight] = [random<Tensor2D>('x', 4, 6), random<Tensor2D>('w', 9, 6)];
    const [bias, labels] = [random<Tensor1D>('b', 9), new Int32Array([2, -100, 8, 0])];
    const p = { weight, bias };
    await expectClose(
      tidy(() => linearCrossEntropy(p, x, labels)),
      await tidy(() => crossEntropy(linear(p, x), labels)).data(),
    );
    expect(
      await gradientError((x) => linearCrossEntropy({ weight }, x as Tensor2D, labels), [x]),
    ).toBeLessThan(fdTolerance);
    expect(() => linearCrossEntropy({ weight }, x, new Int32Array(3))).toThrow(/4 rows of x, 3 labels/);
    expect(() => linearCrossEntropy({ weight }, x, new Int32Array([9, 0, 0, 0]))).toThrow(/vocabulary of 9/);
    expect(() => linearCrossEntropy({ weight }, random<Tensor2D>('y', 4, 5), labels)).toThrow(/width 6/);
  });

  it('dropout: exactly the stream’s mask, its own gradient, nothing without a key', async () => {
    const x = random('x', 5, 13);
    const [key, rate] = [rngKey(11), 0.25];
    const [xs, draws] = [await x.data(), uniform(key, 65)];
    await expectClose(
      tidy(() => dropout(x, rate, key)),
      [...xs].map((value, i) => (draws[i] >= rate ? value / (1 - rate) : 0)),
    );
    expect(await gradientError((x) => dropout(x, rate, key), [x])).toBeLessThan(fdTolerance);
    expect(dropout(x, rate, undefined)).toBe(x);
  });

  it('structural ops: gradients', async () => {
    const [a, b] = [random('a', 2, 3, 4), random('b', 2, 3, 4)];
    const positive = tidy(() => add(exp(b), tensor([0.5], [])));
    const cases: [(...xs: Tensor[]) => Tensor, Tensor[]][] = [
      [(a, b) => add(a, b), [a, b]],
      [(a, b) => add(a, b), [a, random('row', 1, 3, 4)]],
      [(a, b) => sub(a, b), [a, random('last', 4)]],
      [(a, b) => mul(a, b), [a, random('col', 3, 1)]],
      [(a, b) => div(a, b), [a, positive]],
      [(a) => scale(a, -2.5), [a]],
      [(a) => exp(a), [a]],
      [(x) => log(x), [positive]],
      [(x) => sqrt(x), [positive]],
      [(a) => reshape(a, [4, 6]), [a]],
      [(a) => transpose(a, [2, 0, 1]), [a]],
      [(a, b) => concat([a, b], 1), [a, b]],
      [(a) => slice(a, [0, 1, 1], [2, 2, -1]), [a]],
      [(a) => concat(split(a, 2, 2).reverse(), 0), [a]],
      [(x) => tile(x, [2, 3]), [random('t', 2, 3)]],
      [(a) => sum(a, 1), [a]],
      [(a) => mean(a, -1, true), [a]],
      [(a) => max(a, 1), [a]],
    ];
    for (const [f, xs] of cases) expect(await gradientError(f, xs), f.toString()).toBeLessThan(fdTolerance);
  });

  it('checkpoint: same value and gradients as without, for x and for Variables inside, and no leak', async () => {
    const layers = Array.from({ length: 3 }, (_, i) => ({
      weight: variable(random<Tensor2D>(`w${i}`, 4, 4)) as unknown as Tensor2D,
    }));
    const x = random('x', 2, 4);
    const block = (p: { weight: Tensor2D }) => (x: Tensor) => gelu(linear(p, x));
    const run = (wrap: boolean) => () =>
      sum(layers.reduce((h, p) => (wrap ? checkpoint(block(p), [h], p) : block(p)(h)), x)) as Scalar;
    const xs = [x, ...layers.map((p) => p.weight)];
    const [plain, before] = [valueAndGrads(run(false), xs), memory().numTensors];
    const wrapped = valueAndGrads(run(true), xs);
    expect(memory().numTensors - before).toBe(1 + xs.length);
    await expectClose(wrapped.value, await plain.value.data(), 1e-6);
    for (const [i, grad] of wrapped.grads.entries())
      await expectClose(grad, await plain.grads[i].data(), 1e-6);
    dispose([plain, wrapped, layers]);
  });

  it('adamW follows the textbook update; clipping scales to the norm; nothing leaks', async () => {
    const p = variable(tensor([1, -2], [2]));
    const [m, v] = [variable(tensor([0, 0], [2])), variable(tensor([0, 0], [2]))];
    const grad = tensor([3, 4], [2]);
    const norm = globalNorm([grad]);
    await expectClose(norm, [5]);
    const factor = clipScale(norm, 1);
    await expectClose(factor, [1 / (5 + 1e-6)]);
    const before = memory().numTensors;
    const o = { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8 };
    let [pw, mw, vw] = [
      [1, -2],
      [0, 0],
      [0, 0],
    ];
    for (let step = 1; step <= 5; step++) {
      adamW([{ param: p, grad, m, v, weightDecay: 0.01 }], factor, { ...o, step });
      const g = [0.6, 0.8];
      mw = mw.map((x, i) => 0.9 * x + 0.1 * g[i]);
      vw = vw.map((x, i) => 0.99 * x + 0.01 * g[i] ** 2);
      pw = pw.map(
        (x, i) =>
          x * (1 - 0.1 * 0.01) -
          (0.1 * (mw[i] / (1 - 0.9 ** step))) / (Math.sqrt(vw[i] / (1 - 0.99 ** step)) + 1e-8),
      );
    }
    expect(memory().numTensors).toBe(before);
    await expectClose(p, pw);
    dispose([p, m, v]);
  });

  it('adamW and globalNorm of a list give the bits of one tensor at a time', async () => {
    const sizes = [[1], [3, 5], [65], [2, 33, 7], [16, 40], [31]];
    const make = () =>
      sizes.map((shape, i) => ({
        param: variable(random(`p${i}`, ...shape)),
        grad: random(`g${i}`, ...shape),
        m: variable(scale(random(`m${i}`, ...shape), 0.1)),
        v: variable(mul(random(`v${i}`, ...shape), random(`v${i}`, ...shape))),
        weightDecay: i % 2 ? 0.1 : 0,
      }));
    const o = { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, step: 3 };
    const [together, apart] = [make(), make()];
    const factor = tensor([0.7], []) as Scalar;
    adamW(together, factor, o);
    for (const slot of apart) adamW([slot], factor, o);
    for (const [i, slot] of together.entries())
      for (const part of ['param', 'm', 'v'] as const)
        expect(await slot[part].data(), `${part} ${i}`).toEqual(await apart[i][part].data());
    const grads = together.map(({ grad }) => grad);
    const values = (await Promise.all(grads.map((g) => g.data()))) as Float32Array[];
    const squares = values.flatMap((g) => [...g]).reduce((a, g) => a + g * g, 0);
    await expectClose(globalNorm(grads), [Math.sqrt(squares)]);
    dispose([together, apart, factor]);
  });

  it('valueAndGrads: an unused input gets zeros, and memory returns to what it was', async () => {
    const [a, b] = [random('a', 3), random('b', 3)];
    const before = memory().numTensors;
    const { value, grads } = valueAndGrads(() => sum(mul(a, a)) as Scalar, [a, b]);
    await expectClose(
      grads[0],
      [...(await a.data())].map((x) => 2 * x),
    );
    await expectClose(grads[1], [0, 0, 0]);
    dispose([value, grads]);
    expect(memory().numTensors).toBe(before);
  });
});
