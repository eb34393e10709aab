import { memory } from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  cpuBackend,
  dispose,
  keep,
  mergePages,
  pagedAttention,
  pickCached,
  pickPages,
  startBackend,
  tensor,
  tidy,
} from './index';
import type { CachedRows, CachePage, Tensor3D } from './index';

const [L, B, D] = [2, 3, 4];

/** A page of T positions whose numbers tell the position, the row and the column. */
function page(position: number, T: number, rows = B): CachePage {
  const values = (sign: number) =>
    keep(
      tensor<Tensor3D>(
        Float32Array.from({ length: rows * T * D }, (_, i) => sign * Math.sin(100 * position + i)),
        [rows, T, D],
      ),
    );
  return { layers: Array.from({ length: L }, (_, i) => ({ k: values(i + 1), v: values(-i - 1) })) };
}

const cacheOf = (pages: CachePage[]): CachedRows => {
  const K = pages.reduce((sum, { layers }) => sum + layers[0].k.shape[1], 0);
  return { pages, seen: new Int32Array(B * K).fill(1) };
};

/** Attention of one query to the keys and values of a layer. */
function attended({ pages }: CachedRows, layer: number): Float32Array {
  const out = tidy(() => {
    const q = tensor<Tensor3D>(
      Float32Array.from({ length: B * D }, (_, i) => Math.cos(i)),
      [B, 1, D],
    );
    const own = pages.map(({ rows, layers }) => ({ ...layers[layer], rows }));
    return pagedAttention(q, own, { numHeads: 2, causal: true });
  });
  const values = out.dataSync().slice() as Float32Array;
  out.dispose();
  return values;
}

describe('mergePages', () => {
  beforeAll(() => startBackend(cpuBackend));

  it('leaves a cache alone until its last eight pages have one position each', () => {
    const pages = [page(0, 5), ...Array.from({ length: 7 }, (_, i) => page(5 + i, 1))];
    expect(mergePages(cacheOf(pages)).pages).toEqual(pages);
    const later = [page(12, 1), page(13, 2), ...pages.slice(1)];
    expect(mergePages(cacheOf(later)).pages).toEqual(later);
    [...pages, ...later].forEach(({ layers }) => dispose(layers));
  });

  it('copies the rows that each page has for the cache, and frees the pages', () => {
    const before = memory().numTensors;
    const single = Array.from({ length: 8 }, (_, i) => page(5 + i, 1));
    const beams = pickPages(single.slice(0, 6), Int32Array.of(2, 0, 2));
    const cache = cacheOf([{ ...page(0, 5, 1), rows: Int32Array.of(0, 0, 0) }, ...beams, ...single.slice(6)]);
    const expected = [0, 1].map((layer) => attended(cache, layer));
    const merged = mergePages(cache);
    expect(merged.pages.map(({ layers }) => layers[0].k.shape)).toEqual([
      [1, 5, D],
      [B, 8, D],
    ]);
    expect([0, 1].map((layer) => attended(merged, layer))).toEqual(expected);
    expect(merged.seen).toBe(cache.seen);
    expect(memory().numTensors).toBe(before + 2 * 2 * L);
    const picked = pickCached(merged, Int32Array.of(1));
    expect(picked.pages[1].rows).toEqual(Int32Array.of(1));
    merged.pages.forEach(({ layers }) => dispose(layers));
  });
});
