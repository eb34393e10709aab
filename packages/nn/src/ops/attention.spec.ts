import { expect, it } from 'vitest';
import { expectClose, onEveryBackend } from '../../spec/fixtures';
import { FD_TOLERANCE, gradientError, random } from '../conformance';
import { attention, checkpoint, mul, rngKey, sum, tensor, tidy, valueAndGrads } from '../index';
import type { Scalar, Tensor, Tensor2D, Tensor3D, Tensor4D } from '../index';

/** Attention in plain float64 loops, as reference. */
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

onEveryBackend('attention', () => {
  it.each([
    { name: 'plain', Tq: 5, Tk: 5, causal: false },
    { name: 'causal', Tq: 5, Tk: 5, causal: true },
    { name: 'cross', Tq: 3, Tk: 9, causal: false },
    { name: 'one query with a cache', Tq: 1, Tk: 6, causal: true },
    { name: 'masked and causal', Tq: 4, Tk: 6, causal: true, mask: [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1] },
  ])('$name: values and gradients', async ({ Tq, Tk, causal, mask }) => {
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
    expect(await gradientError(f, [q, k, v])).toBeLessThan(FD_TOLERANCE);
  });

  it('a query without visible keys yields 0 and contributes no gradient', async () => {
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
    expect(await gradientError(f, [q, k, v])).toBeLessThan(FD_TOLERANCE);
  });

  it.each([
    { name: 'one bias for all items', items: 1, Tq: 4, Tk: 4, causal: true },
    { name: 'a bias for each item', items: 2, Tq: 3, Tk: 5, causal: false },
    {
      name: 'hidden keys, an item that sees none, dropout',
      items: 1,
      Tq: 2,
      Tk: 4,
      causal: true,
      mask: [0, 1, 1, 1, 0, 0, 0, 0],
      rate: 0.3,
    },
  ])('bias, $name: gradients', async ({ items, Tq, Tk, causal, mask, rate = 0 }) => {
    const [q, k, v] = [random('q', 2, Tq, 4), random('k', 2, Tk, 4), random('v', 2, Tk, 4)];
    const bias = random('bias', items, 2, Tq, Tk);
    const keyMask = mask && (tensor(mask, [2, Tk]) as Tensor2D);
    const f = (q: Tensor, k: Tensor, v: Tensor, bias: Tensor) =>
      attention(q as Tensor3D, k as Tensor3D, v as Tensor3D, {
        numHeads: 2,
        causal,
        keyMask,
        dropout: { rate, key: rngKey(5) },
        bias: bias as Tensor4D,
      });
    expect(await gradientError(f, [q, k, v, bias])).toBeLessThan(FD_TOLERANCE);
    const all = valueAndGrads(() => sum(f(q, k, v, bias)) as Scalar, [q, k, v, bias]);
    const frozen = valueAndGrads(() => sum(f(q, k, v, bias)) as Scalar, [q, k, v]);
    expect(all.grads[3].shape).toEqual([items, 2, Tq, Tk]);
    for (const i of [0, 1, 2]) await expectClose(frozen.grads[i], await all.grads[i].data(), 1e-7);
    const alone = valueAndGrads(() => sum(f(q, k, v, bias)) as Scalar, [bias]);
    await expectClose(alone.grads[0], await all.grads[3].data(), 1e-7);
  });

  it('a trained bias has a gradient, also with checkpoint', async () => {
    const [x, bias] = [random<Tensor3D>('q', 2, 3, 4), random<Tensor4D>('bias', 1, 2, 3, 3)];
    const f = (x: Tensor, bias: Tensor) =>
      attention(x as Tensor3D, x as Tensor3D, x as Tensor3D, { numHeads: 2, bias: bias as Tensor4D });
    const [plain, again] = [f, (x: Tensor, bias: Tensor) => checkpoint(f, [x, bias], {})].map((g) =>
      valueAndGrads(() => sum(mul(g(x, bias), x)) as Scalar, [x, bias]),
    );
    for (const i of [0, 1]) await expectClose(again.grads[i], await plain.grads[i].data(), 1e-6);
  });

  it('refuses a bias of another shape', () => {
    const [q, k] = [random<Tensor3D>('q', 3, 2, 4), random<Tensor3D>('k', 3, 5, 4)];
    const wrong = [
      [2, 2, 2, 5],
      [1, 1, 2, 5],
      [1, 2, 5, 2],
      [3, 2, 2, 1],
    ];
    for (const shape of wrong)
      expect(() => attention(q, k, k, { numHeads: 2, bias: random<Tensor4D>('bias', ...shape) })).toThrow(
        `attention: expected a bias [1 or 3, 2, 2, 5], found [${shape}]`,
      );
  });

  it('the gradient uses the same dropout mask as the forward pass', async () => {
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
    expect(await gradientError(f, [q, k, v])).toBeLessThan(FD_TOLERANCE);
  });
});
