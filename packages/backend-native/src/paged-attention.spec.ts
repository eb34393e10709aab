/** Attention to KV pages at every instruction-set level, compared with the scalar reference on the concatenated pages. */
import { describe, expect, it } from 'vitest';
import * as reference from '../spec/scalar-reference';
import { addon, expectClose, levels, loaded, misaligned, numbers, run } from '../spec/fixtures';

interface Size {
  B: number;
  Tq: number;
  H: number;
  d: number;
  /** Positions of each page, and its row for each item. */
  pages: { T: number; rows: number[] | null }[];
}

const pageOf = (size: Size, i: number, seed: number) => {
  const { T, rows } = size.pages[i]!;
  const held = rows ? Math.max(...rows) + 1 : size.B;
  return misaligned(numbers(held * T * size.H * size.d, 20 + 2 * i + seed), 1 + (i % 3));
};

/** The concatenated pages, [B, Tk, D]. */
function joined(size: Size, parts: Float32Array[]): Float32Array {
  const D = size.H * size.d;
  const rows = Array.from({ length: size.B }, (_, b) =>
    size.pages.flatMap(({ T, rows }, i) => {
      const row = rows ? rows[b]! : b;
      return [...parts[i]!.subarray(row * T * D, (row + 1) * T * D)];
    }),
  );
  return Float32Array.from(rows.flat());
}

function check(size: Size, o: { causal: boolean; keyMask?: Float32Array; bias?: Float32Array }): void {
  const { B, Tq, H, d, pages } = size;
  const [D, Tk] = [H * d, pages.reduce((sum, { T }) => sum + T, 0)];
  const [ks, vs] = [0, 1].map((seed) => pages.map((_, i) => pageOf(size, i, seed))) as Float32Array[][];
  const q = misaligned(numbers(B * Tq * D, 6), 1);
  const [scale, keyMask, bias] = [d ** -0.5, o.keyMask ?? null, o.bias ?? null];
  const shared = { B, Tq, Tk, D, H, scale, causal: o.causal, q, keyMask, bias };
  const expected = reference.attention(
    { ...shared, k: joined(size, ks!), v: joined(size, vs!), dropout: 0, key0: 0, key1: 0 },
    numbers(B * Tq * D, 9),
  );
  const lengths = pages.map(({ T }) => T);
  const rows = pages.map(({ rows }) => rows && Int32Array.from(rows));
  const [out] = run((make) =>
    addon.pagedAttention(
      ...([B, Tq, D, H, scale, o.causal, q, lengths] as const),
      ...([ks!, vs!, rows, keyMask, bias, make(B * Tq * D)] as const),
    ),
  );
  expectClose(out!, expected.out, 3e-6, JSON.stringify({ ...size, causal: o.causal }));
}

const name = loaded.addon ? 'paged attention' : `paged attention (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(name, () => {
  it.each(levels)('%s: pages of unequal length, shared and unused rows, odd widths', (level) => {
    addon.setInstructionSet(level);
    for (const d of [1, 3, 8, 15, 16, 17, 33, 64, 65, 80])
      for (const Tq of [1, 2, 5])
        for (const causal of [false, true])
          check(
            {
              ...{ B: 3, Tq, H: 2, d },
              pages: [
                { T: 17, rows: [1, 1, 0] },
                { T: 1, rows: [0, 2, 3] },
                { T: Tq, rows: null },
              ],
            },
            { causal },
          );
  });

  it.each(levels)('%s: masked keys, queries without visible keys, and a single page', (level) => {
    addon.setInstructionSet(level);
    const pages = [
      { T: 4, rows: [1, 0] },
      { T: 3, rows: null },
    ];
    const size = { B: 2, Tq: 3, H: 3, d: 5, pages };
    check(size, { causal: true, keyMask: numbers(14, 10).map((x) => Number(x > -0.3)) });
    check(size, { causal: false, keyMask: Float32Array.from({ length: 14 }, (_, i) => Number(i > 6)) });
    check({ ...size, pages: [{ T: 2, rows: null }] }, { causal: true });
  });

  it.each(levels)('%s: a bias for each item, and one for all', (level) => {
    addon.setInstructionSet(level);
    for (const T of [1, 15, 16, 17]) {
      const pages = [
        { T, rows: [1, 0] },
        { T: 2, rows: null },
      ];
      const size = { B: 2, Tq: 2, H: 9, d: 5, pages };
      for (const items of [1, 2]) {
        const bias = misaligned(numbers(items * 9 * 2 * (T + 2), 14), 1);
        check(size, { causal: true, bias });
        const keyMask = numbers(2 * (T + 2), 10).map((x) => Number(x > -0.3));
        check(size, { causal: false, bias, keyMask });
      }
    }
  });

  it('refuses arguments that do not fit', () => {
    const [q, out] = [new Float32Array(8), new Float32Array(8)];
    const call = (k: Float32Array[], rows: (Int32Array | null)[], lengths = [2]) =>
      addon.pagedAttention(2, 1, 4, 2, 1, true, q, lengths, k, k, rows, null, null, out);
    call([new Float32Array(16)], [null]);
    expect(() => call([new Float32Array(15)], [null])).toThrow(
      'k[0]: expected whole rows of 8 elements, found 15',
    );
    expect(() => call([new Float32Array(24)], [null])).toThrow('k: expected 2 rows, found 3');
    expect(() => call([new Float32Array(16)], [Int32Array.of(0, 2)])).toThrow(
      'rows[1]: expected 0 … 1, found 2',
    );
    expect(() => call([new Float32Array(16)], [Int32Array.of(0)])).toThrow(
      'rows[0]: expected 2 elements, found 1',
    );
    expect(() => call([new Float32Array(16)], [null], [2, 1])).toThrow('expected 2 entries, found 1');
  });
});
