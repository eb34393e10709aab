/** On every backend, attention to pages equals attention to the concatenated pages. */
import { beforeAll, describe, expect, it } from 'vitest';
import { attention, concat, fold, gatherRows, normal, pagedAttention, rngKey, tensor } from '../index';
import { availableBackends, useBackend } from '../node';
import type { KvPage, Tensor, Tensor2D, Tensor3D, Tensor4D } from '../index';

function random(name: string, ...shape: number[]): Tensor3D {
  return tensor<Tensor3D>(
    normal(
      fold(rngKey(7), name),
      shape.reduce((a, b) => a * b, 1),
    ),
    shape,
  );
}

const page = (name: string, held: number, T: number, rows?: number[]): KvPage => ({
  ...{ k: random(`k${name}`, held, T, 6), v: random(`v${name}`, held, T, 6) },
  rows: rows && Int32Array.from(rows),
});

describe.each(await availableBackends())('pagedAttention on %s', (backend) => {
  beforeAll(async () => {
    await useBackend(backend);
  });

  it.each([
    { name: 'one query', Tq: 1, causal: true },
    { name: 'several queries', Tq: 3, causal: true },
    { name: 'a mask', Tq: 2, causal: false, hidden: [0, 7, 9] },
    { name: 'a bias for all', Tq: 1, causal: true, biased: 1 },
    { name: 'a bias for each item', Tq: 2, causal: true, hidden: [0, 7, 9], biased: 3 },
  ])('$name: equals attention to the joined rows', async ({ Tq, causal, hidden, biased }) => {
    const q = random('q', 3, Tq, 6);
    const pages = [page('a', 2, 4, [1, 1, 0]), page('b', 5, 1, [4, 0, 2]), page('c', 3, Tq)];
    const Tk = 5 + Tq;
    const join = (part: 'k' | 'v') =>
      concat(
        pages.map((p) => (p.rows ? gatherRows(p[part], p.rows) : p[part])),
        1,
      );
    const mask = Float32Array.from({ length: 3 * Tk }, (_, i) => Number(!hidden?.includes(i)));
    const o = {
      numHeads: 2,
      causal,
      keyMask: hidden && tensor<Tensor2D>(mask, [3, Tk]),
      bias: biased ? (random('bias', biased, 2, Tq, Tk) as Tensor as Tensor4D) : undefined,
    };
    const want = await attention(q, join('k'), join('v'), o).data();
    const found = await pagedAttention(q, pages, o).data();
    expect(found.length).toBe(want.length);
    found.forEach((x, i) => expect(Math.abs(x - want[i])).toBeLessThan(1e-6));
  });

  it('refuses arguments that do not fit', () => {
    const q = random('q', 3, 1, 6);
    const of = (...pages: KvPage[]) => pagedAttention(q, pages, { numHeads: 2 });
    expect(() => of(page('a', 2, 4))).toThrow(
      'pagedAttention: q [3,1,6] expects 3 rows of a page of 2, found 2',
    );
    expect(() => of(page('a', 2, 4, [0, 1, 2]))).toThrow('3 rows of a page of 2, found [0,1,2]');
    expect(() => of({ k: random('k', 3, 1, 5), v: random('v', 3, 1, 5) })).toThrow(
      'of one shape and width 6',
    );
    expect(() => of({ k: random('k', 3, 1, 6), v: random('v', 3, 2, 6) })).toThrow(
      'of one shape and width 6',
    );
  });
});
