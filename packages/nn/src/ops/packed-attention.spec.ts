/** Packed attention compared with `attention` of every row by itself, and what a position can see. */
import { beforeAll, describe, expect, it } from 'vitest';
import { availableBackends, useBackend } from '../node';
import { random } from '../conformance';
import { weightedGradients } from '../finite-difference';
import type { Packing } from '../kernels';
import { attention, packedAttention } from './index';
import { concat, reshape, slice, tensor, tidy } from './structural';
import type { Tensor, Tensor2D, Tensor3D } from './structural';

const D = 6;
const numHeads = 2;

/** Rows of a packing: positions in order. */
function rowsOf({ prefixLength: Q, pictures, starts }: Packing): number[][] {
  return Array.from(pictures, (picture, b) => [
    ...Array.from({ length: Q }, (_, i) => picture * Q + i),
    ...Array.from({ length: starts[b + 1] - starts[b] }, (_, t) => starts[b] + t),
  ]);
}

/** Packed attention from `attention` of one row at a time; a prefix is taken from the first row that has it. */
function unshared(q: Tensor, k: Tensor, v: Tensor, packing: Packing): Tensor {
  const N = q.shape[0];
  const place = new Map<number, Tensor>();
  for (const row of rowsOf(packing)) {
    const cut = (x: Tensor) =>
      reshape<Tensor3D>(
        concat(
          row.map((n) => slice(x, [n, 0], [1, -1])),
          0,
        ),
        [1, row.length, D],
      );
    const out = attention(cut(q), cut(k), cut(v), { numHeads, causal: true });
    row.forEach(
      (n, i) => place.has(n) || place.set(n, slice(reshape(out, [row.length, D]), [i, 0], [1, -1])),
    );
  }
  return concat(
    Array.from({ length: N }, (_, n) => place.get(n)!),
    0,
  );
}

const packings: Record<string, Packing> = {
  'one row for each picture': {
    prefixes: 2,
    prefixLength: 3,
    pictures: Int32Array.of(0, 1),
    starts: Int32Array.of(6, 8, 11),
  },
  'one, two and five rows of a picture, in any order': {
    prefixes: 3,
    prefixLength: 2,
    pictures: Int32Array.of(2, 0, 2, 1, 2, 1, 2, 2),
    starts: Int32Array.of(6, 9, 10, 12, 16, 17, 19, 22, 24),
  },
  'no prefixes': {
    prefixes: 0,
    prefixLength: 0,
    pictures: Int32Array.of(0, 0, 0),
    starts: Int32Array.of(0, 1, 5, 7),
  },
  'a prefix of one position, and a row that is its prefix': {
    prefixes: 1,
    prefixLength: 1,
    pictures: Int32Array.of(0, 0),
    starts: Int32Array.of(1, 1, 3),
  },
};

const backends = await availableBackends();

describe.each(backends)('packedAttention on %s', (backend) => {
  beforeAll(async () => void (await useBackend(backend, { precision: 'float32' })));

  it.each(Object.entries(packings))('equals attention of each row: %s', async (_, packing) => {
    const N = packing.starts.at(-1)!;
    const xs = () => ['q', 'k', 'v'].map((name) => random(name, N, D));
    const run = (f: (q: Tensor, k: Tensor, v: Tensor) => Tensor) =>
      tidy(() => [f(...(xs() as [Tensor, Tensor, Tensor])), ...weightedGradients(f as never, xs()).grads]);
    const found = run((q, k, v) =>
      packedAttention(q as Tensor2D, k as Tensor2D, v as Tensor2D, packing, { numHeads }),
    );
    const expected = run((q, k, v) => unshared(q, k, v, packing));
    for (const [i, x] of expected.entries()) {
      const [is, should] = [await found[i].data(), await x.data()];
      should.forEach((value, j) =>
        expect(Math.abs(is[j] - value)).toBeLessThan(1e-6 * (1 + Math.abs(value))),
      );
    }
  });

  it('lets a text see its own prefix and its own earlier positions, and nothing else', async () => {
    const packing = packings['one, two and five rows of a picture, in any order'];
    const N = packing.starts.at(-1)!;
    const rows = rowsOf(packing);
    const sees = (n: number, m: number) =>
      rows.some((row) => row.indexOf(n) >= row.indexOf(m) && row.includes(n) && row.includes(m));
    const q = random<Tensor2D>('q', N, D);
    const outputs = async (changed?: number) => {
      const values = (await random('k', N, D).data()).slice();
      if (changed !== undefined) values.fill(9, changed * D, (changed + 1) * D);
      const x = tensor<Tensor2D>(values as Float32Array, [N, D]);
      return packedAttention(q, x, x, packing, { numHeads }).data();
    };
    const before = await outputs();
    for (let m = 0; m < N; m++) {
      const after = await outputs(m);
      for (let n = 0; n < N; n++) {
        const same = before.slice(n * D, (n + 1) * D).every((value, d) => value === after[n * D + d]);
        expect(same, `position ${n} and a changed position ${m}`).toBe(!sees(n, m));
      }
    }
  });

  it('refuses a packing that does not fit', () => {
    const x = random<Tensor2D>('q', 5, D);
    const act = (change: Partial<Packing>) => () =>
      packedAttention(
        x,
        x,
        x,
        { prefixes: 1, prefixLength: 2, pictures: Int32Array.of(0), starts: Int32Array.of(2, 5), ...change },
        { numHeads },
      );
    expect(act({})).not.toThrow();
    expect(act({ pictures: Int32Array.of(1) })).toThrow(
      'packedAttention: expected 1 prefixes of 2 positions, each with a text, and then texts, 5 positions in all, ' +
        'found texts that start at [2,5], of pictures [1]',
    );
    expect(act({ starts: Int32Array.of(2, 4) })).toThrow('texts that start at [2,4]');
    expect(act({ starts: Int32Array.of(1, 5) })).toThrow('texts that start at [1,5]');
    expect(act({ pictures: Int32Array.of(0, 0), starts: Int32Array.of(2, 6, 5) })).toThrow('[2,6,5]');
  });
});
