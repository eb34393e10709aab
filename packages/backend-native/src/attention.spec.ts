/** Attention and its gradients compared with a scalar reference. */
import type { Precision } from '@blip2/nn';
import { beforeEach, describe, expect, it } from 'vitest';
import * as reference from '../spec/scalar-reference';
import { addon, atEveryLevel, bfloat16Levels, expectClose, misaligned, numbers, run } from '../spec/fixtures';

type Size = [B: number, Tq: number, Tk: number, H: number, d: number];
type Options = Partial<reference.AttentionCase>;

/** Found and expected results of attention and its gradients, for operands rounded by `round`. */
function attend(
  size: Size,
  o: Options,
  round = (values: Float32Array) => values,
  precision: Precision = 'float32',
) {
  const [B, Tq, Tk, H, d] = size;
  const D = H * d;
  const c: reference.AttentionCase = {
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
    bias: null,
    q: misaligned(round(numbers(B * Tq * D, 6)), 1),
    k: round(numbers(B * Tk * D, 7)),
    v: round(numbers(B * Tk * D, 8)),
    ...o,
  };
  const dout = round(numbers(B * Tq * D, 9));
  const expected = reference.attention(c, dout);
  const args = [
    ...([B, Tq, Tk, D, H, c.scale, c.causal, c.dropout, c.key0, c.key1] as const),
    ...([c.q, c.k, c.v, c.keyMask, c.bias] as const),
  ] as const;
  const [out, lse] = run((make) => addon.attention(...args, make(B * Tq * D), make(B * H * Tq), precision));
  const [dq, dk, dv] = run((make) =>
    addon.attentionGrad(
      ...args,
      ...([out!, lse!, dout] as const),
      ...([make(B * Tq * D), make(B * Tk * D), make(B * Tk * D), precision] as const),
    ),
  );
  const [dbias] = c.bias
    ? run((make) => addon.attentionGradBias(...args, out!, lse!, dout, make(c.bias!.length), precision))
    : [new Float32Array()];
  const found = { out: out!, lse: lse!, dq: dq!, dk: dk!, dv: dv!, dbias: dbias! };
  return { found, expected, where: `[${size}] causal=${c.causal} dropout=${c.dropout}` };
}

/** The last has more queries than one block, and fewer keys. */
const biasedSizes: Size[] = [
  [2, 1, 1, 1, 1],
  [3, 1, 65, 2, 8],
  [2, 17, 33, 3, 11],
  [3, 29, 29, 2, 4],
  [2, 300, 19, 1, 3],
];

/** The beginning of a larger array: numbers after the last row must not be read. */
function biasOf([B, Tq, Tk, H]: Size, items: number): Float32Array {
  const n = (items === 1 ? 1 : B) * H * Tq * Tk;
  const roomy = misaligned(numbers(n + 16, 13), 1);
  roomy.fill(NaN, n);
  return roomy.subarray(0, n);
}

const biasedOptions = ([B, , Tk]: Size): Options[] => [
  {},
  { causal: true, scale: 1 },
  { keyMask: numbers(B * Tk, 10).map((x) => Number(x > -0.3)), causal: true, dropout: 0.2 },
  { keyMask: Float32Array.from({ length: B * Tk }, (_, i) => Number(i >= Tk)) }, // the first item has no visible keys
];

atEveryLevel('attention', (at) => {
  const checkAttention = (size: Size, o: Options) => {
    const { found, expected, where } = attend(size, o);
    for (const name of ['out', 'lse'] as const)
      expectClose(found[name], expected[name], 3e-6, `${name} ${where}`);
    for (const name of ['dq', 'dk', 'dv', 'dbias'] as const)
      expectClose(found[name], expected[name], 1e-5, `${name} ${where}`);
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
    for (const T of [280, 300]) checkAttention([1, T, T, 1, 8], { causal: true });
    checkAttention([1, 150, 700, 1, 3], { dropout: 0.1 });
  });

  at('attention: masked keys, and queries without visible keys', () => {
    const keyMask = (B: number, Tk: number) => numbers(B * Tk, 10).map((x) => Number(x > -0.3));
    checkAttention([3, 9, 20, 2, 4], { keyMask: keyMask(3, 20) });
    checkAttention([3, 20, 20, 2, 4], { keyMask: keyMask(3, 20), causal: true, dropout: 0.2 });
    checkAttention([2, 5, 5, 2, 4], {
      keyMask: Float32Array.of(0, 0, 1, 1, 1, 0, 0, 0, 0, 0),
      causal: true,
    });
    checkAttention([2, 9, 4, 1, 4], { causal: true });
  });

  at('attention: a bias for each item, and one for all', () => {
    for (const size of biasedSizes)
      for (const items of [1, size[0]])
        for (const o of biasedOptions(size)) checkAttention(size, { ...o, bias: biasOf(size, items) });
  });
});

// With operands that are exact in bfloat16, scores and lse are exact. Only the probabilities and their gradients are rounded for the
// other matmuls, with a relative error of at most 2^-9, so errors are compared with the norm of the expected result.
describe.each(bfloat16Levels)('attention in bfloat16, %s', (level) => {
  beforeEach(() => addon.setInstructionSet(level));

  const checkRounded = (size: Size, o: Options) => {
    const { found, expected, where } = attend(size, o, reference.toBFloat16, 'bfloat16');
    expectClose(found.lse, expected.lse, 3e-6, `lse ${where}`);
    const norm = (values: Float64Array) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
    for (const [name, bound] of [
      ['out', 2 ** -8],
      ['dq', 2 ** -7],
      ['dk', 2 ** -7],
      ['dv', 2 ** -8],
      ['dbias', 2 ** -7],
    ] as const) {
      const error = norm(expected[name].map((x, i) => x - found[name][i]!));
      expect(error, `${name} ${where}`).toBeLessThanOrEqual(bound * Math.max(0.1, norm(expected[name])));
    }
  };

  it('rounds the operands of its matmuls', () => {
    const size: Size = [2, 17, 33, 2, 11];
    const [exact, rounded] = [(values: Float32Array) => values, reference.toBFloat16].map((round) =>
      attend(size, { causal: true, dropout: 0.1 }, round, 'bfloat16'),
    );
    expect(exact!.found.out).toEqual(rounded!.found.out);
    expect(exact!.found.lse).toEqual(rounded!.found.lse);
    expect(attend(size, { causal: true, dropout: 0.1 }).found.lse).not.toEqual(exact!.found.lse);
  });

  it('sizes, causal, dropout', () => {
    for (const [Tq, Tk, d] of [
      [1, 1, 1],
      [1, 65, 8],
      [3, 5, 2],
      [15, 31, 80],
      [46, 46, 32],
      [33, 64, 11],
      [65, 65, 5],
      [29, 257, 88],
    ] as const)
      for (const causal of [false, true])
        for (const dropout of [0, 0.3]) checkRounded([2, Tq, Tk, 2, d], { causal, dropout });
  });

  it('several blocks of queries', () => {
    for (const T of [280, 300]) checkRounded([1, T, T, 1, 8], { causal: true });
    checkRounded([1, 150, 700, 1, 3], { dropout: 0.1 });
    checkRounded([1, 530, 19, 1, 3], {});
  });

  it('more keys than fit in a row of words', () => {
    checkRounded([1, 3, 2500, 1, 2], {});
  });

  it('masked keys, and queries without visible keys', () => {
    const keyMask = numbers(60, 10).map((x) => Number(x > -0.3));
    checkRounded([3, 9, 20, 2, 4], { keyMask });
    checkRounded([3, 20, 20, 2, 4], { keyMask, causal: true, dropout: 0.2 });
    checkRounded([2, 9, 4, 1, 4], { causal: true });
  });

  it('a bias for each item, and one for all', () => {
    for (const size of biasedSizes)
      for (const items of [1, size[0]])
        for (const o of biasedOptions(size)) checkRounded(size, { ...o, bias: biasOf(size, items) });
  });
});
