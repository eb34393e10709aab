/** Attention of packed rows: the bits of attention of each row by itself, padded to the longest. */
import type { Precision } from '@blip2/nn';
import { describe, expect, it } from 'vitest';
import { addon, atEveryLevel, bfloat16Levels, expectClose, loaded, numbers, run } from '../spec/fixtures';

interface Case {
  Q: number;
  P: number;
  pictures: number[];
  texts: number[];
  H: number;
  d: number;
  dropout?: number;
}

const cases: Case[] = [
  { Q: 3, P: 2, pictures: [0, 1], texts: [2, 3], H: 1, d: 5 },
  { Q: 2, P: 3, pictures: [2, 0, 2, 1, 2, 1], texts: [3, 1, 2, 4, 1, 2], H: 3, d: 7 },
  { Q: 32, P: 2, pictures: [1, 0, 1, 1], texts: [12, 9, 0, 17], H: 2, d: 80, dropout: 0.25 },
  { Q: 0, P: 0, pictures: [0, 0, 0], texts: [1, 4, 2], H: 2, d: 16 },
  { Q: 300, P: 1, pictures: [0, 0], texts: [1, 290], H: 1, d: 8 },
];

/** Packed attention and its gradients, and the same by attention of the padded rows, whose results are picked and summed. */
function both({ Q, P, pictures, texts, H, d, dropout = 0 }: Case, precision: Precision) {
  const D = H * d;
  const starts = Int32Array.from([0, ...texts], (_, b) => texts.slice(0, b).reduce((a, t) => a + t, P * Q));
  const [B, N, T] = [pictures.length, starts.at(-1)!, Q + Math.max(...texts)];
  const [q, k, v, dout] = [1, 2, 3, 4].map((seed) => numbers(N * D, seed)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const scale = d ** -0.5;
  const args = [
    ...([Q, P, Int32Array.from(pictures), starts, D, H, scale, dropout, 5, 6] as const),
    ...([q, k, v] as const),
  ] as const;
  const out = new Float32Array(N * D).fill(NaN);
  const lse = new Float32Array(B * H * T).fill(NaN);
  addon.packedAttention(...args, out, lse, precision);
  const found = run((make) =>
    addon.packedAttentionGrad(...args, out, lse, dout, make(N * D), make(N * D), make(N * D), precision),
  );

  const positions = pictures.map((picture, b) =>
    Array.from({ length: Q + texts[b]! }, (_, i) => (i < Q ? picture * Q + i : starts[b]! + i - Q)),
  );
  const isRead = (b: number, i: number) => i >= Q || pictures.indexOf(pictures[b]!) === b;
  const grid = (x: Float32Array, readOnly = false) => {
    const padded = new Float32Array(B * T * D);
    positions.forEach((row, b) =>
      row.forEach((n, i) => {
        if (!readOnly || isRead(b, i)) padded.set(x.subarray(n * D, (n + 1) * D), (b * T + i) * D);
      }),
    );
    return padded;
  };
  const call = [
    ...([B, T, T, D, H, scale, true, dropout, 5, 6] as const),
    ...([grid(q), grid(k), grid(v), null, null] as const),
  ] as const;
  const [rows, sums] = run((make) => addon.attention(...call, make(B * T * D), make(B * H * T), precision));
  const grads = run((make) =>
    addon.attentionGrad(
      ...call,
      ...([rows!, sums!, grid(dout, true)] as const),
      ...([make(B * T * D), make(B * T * D), make(B * T * D), precision] as const),
    ),
  );
  const collect = (padded: Float32Array, summed: boolean) => {
    const y = new Float32Array(N * D);
    positions.forEach((row, b) =>
      row.forEach((n, i) => {
        if (summed || isRead(b, i)) for (let j = 0; j < D; j++) y[n * D + j]! += padded[(b * T + i) * D + j]!;
      }),
    );
    return y;
  };
  const expected = [collect(grads[0]!, false), collect(grads[1]!, true), collect(grads[2]!, true)];
  return { out, found, expectedOut: collect(rows!, false), expected };
}

function check(precision: Precision, tolerance: number): void {
  for (const c of cases) {
    const { out, found, expectedOut, expected } = both(c, precision);
    expect(out).toEqual(expectedOut);
    found.forEach((x, i) => expectClose(x, expected[i]!, tolerance));
  }
}

atEveryLevel('packed attention', (at) => {
  at('is attention of the rows, with shared prefixes and dropout', () => check('float32', 1e-5));
});

describe.each(bfloat16Levels)('packed attention in bfloat16, %s', (level) => {
  it('is attention of the rows, with shared prefixes and dropout', () => {
    addon.setInstructionSet(level);
    check('bfloat16', 1e-5);
  });
});

const title = loaded.addon ? 'packed attention' : `packed attention (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(title, () => {
  it.each([
    ['a picture that is none', { pictures: [0, 2] }, /pictures\[1\]: expected 0 … 1, found 2/],
    ['a prefix without rows', { pictures: [1, 1] }, /expected an item for each prefix, found one without/],
    ['texts that fall', { starts: [4, 6, 5] }, /expected numbers that do not fall/],
    ['texts inside of the prefixes', { starts: [3, 5, 7] }, /expected to begin after the prefixes, found 3/],
  ])('refuses %s', (_, { pictures = [0, 1], starts = [4, 5, 7] }: Partial<Record<string, number[]>>, why) => {
    const x = () => new Float32Array(starts.at(-1)! * 4);
    const sizes = [2, 2, Int32Array.from(pictures), Int32Array.from(starts), 4, 2, 1, 0, 0, 0] as const;
    expect(() => addon.packedAttention(...sizes, x(), x(), x(), x(), new Float32Array(2 * 2 * 4))).toThrow(
      why,
    );
  });
});
