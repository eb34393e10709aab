/** Cached keys and values of texts that are generated together; texts may begin and end at different times. B rows, K positions. */
import { keep, tidy } from '@tensorflow/tfjs-core';
import type { Tensor, Tensor2D, Tensor3D } from '@tensorflow/tfjs-core';
import { concat, dispose, gatherRows, reshape } from './ops';

/** Keys and values of some positions. */
export interface CachePage {
  /** The row of this page for each row of the cache; by default, the same row. */
  readonly rows?: Int32Array;
  /** For each layer, [rows of the page, T, D]. */
  readonly layers: readonly { readonly k: Tensor3D; readonly v: Tensor3D }[];
}

export interface CachedRows {
  /** In order of position. */
  readonly pages: readonly CachePage[];
  /** `[B, K]`: 1 for the positions of a row, 0 for padding and for positions of other rows. */
  readonly seen: Int32Array;
}

const pageLength = ({ layers: [{ k }] }: CachePage) => k.shape[1];
const positions = (pages: readonly CachePage[]) => pages.reduce((sum, page) => sum + pageLength(page), 0);

/** The rows of pages whose row b is row picked[b] of these. Only row numbers are copied. */
export function pickPages(pages: readonly CachePage[], picked: Int32Array): CachePage[] {
  return pages.map(({ rows, layers }) => ({ rows: rows ? picked.map((row) => rows[row]) : picked, layers }));
}

/**
 * The cache whose row b is row from[b] of this one; rows may be repeated or dropped. Pages that no row sees any more are disposed of, so do not
 * use the given one afterwards.
 * @throws Error for a row that is not there
 */
export function pickCached({ pages, seen }: CachedRows, from: Int32Array): CachedRows {
  const K = positions(pages);
  const held = seen.length / K;
  if (from.length === held && from.every((row, b) => row === b)) return { pages, seen };
  const bad = from.find((row) => row < 0 || row >= held);
  if (bad !== undefined) throw new Error(`expected rows in 0 … ${held - 1} of the cache, found ${bad}`);
  const picked = new Int32Array(from.length * K);
  from.forEach((row, b) => picked.set(seen.subarray(row * K, (row + 1) * K), b * K));
  return withoutUnseen(pickPages(pages, from), picked, K);
}

function withoutUnseen(pages: readonly CachePage[], seen: Int32Array, K: number): CachedRows {
  const isSeen = new Uint8Array(K);
  seen.forEach((one, i) => (isSeen[i % K] |= one));
  let at = 0;
  const kept = pages.flatMap((page) => {
    const columns = Array.from({ length: pageLength(page) }, () => at++);
    if (columns.some((j) => isSeen[j])) return [{ page, columns }];
    dispose(page.layers);
    return [];
  });
  const columns = kept.flatMap((one) => one.columns);
  const n = columns.length;
  const left = Int32Array.from(
    { length: (seen.length / K) * n },
    (_, i) => seen[Math.floor(i / n) * K + columns[i % n]],
  );
  return { pages: kept.map(({ page }) => page), seen: left };
}

/** So many pages of one position become one page: each page is an argument of every later kernel, for each layer. */
const MERGED = 8;

/**
 * The same cache with fewer pages: if the last eight have one position each, one page with copies of their rows takes their place. They are
 * disposed of, so do not use the given cache afterwards.
 */
export function mergePages({ pages, seen }: CachedRows): CachedRows {
  const last = pages.slice(-MERGED);
  if (last.length < MERGED || last.some((page) => pageLength(page) > 1)) return { pages, seen };
  const layers = last[0].layers.map((_, i) => {
    const joined = (name: 'k' | 'v') =>
      keep(
        tidy(() =>
          concat(
            last.map(({ rows, layers }) => ofRows(layers[i][name], rows)),
            1,
          ),
        ),
      );
    const layer = { k: joined('k'), v: joined('v') };
    dispose(last.map((page) => page.layers[i])); // layer by layer, so that little is held twice
    return layer;
  });
  return { pages: [...pages.slice(0, -MERGED), { layers }], seen };
}

/** Rows of x [B, 1, D]. */
function ofRows(x: Tensor3D, rows: Int32Array | undefined): Tensor3D {
  const [B, , D] = x.shape;
  return rows ? reshape(gatherRows<Tensor>(reshape<Tensor2D>(x, [B, D]), rows), [rows.length, 1, D]) : x;
}

/** The rows of all caches in one, each seeing its own positions. No keys or values are copied; the given ones share them with it. */
export function joinCached(caches: readonly CachedRows[]): CachedRows {
  const lengths = caches.map(({ pages }) => positions(pages));
  const counts = caches.map(({ seen }, i) => seen.length / lengths[i]);
  const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
  const [B, K] = [sum(counts), sum(lengths)];
  const seen = new Int32Array(B * K);
  const pages = caches.flatMap((cache, i) => {
    const [row, column] = [sum(counts.slice(0, i)), sum(lengths.slice(0, i))];
    for (let b = 0; b < counts[i]; b++)
      seen.set(cache.seen.subarray(b * lengths[i], (b + 1) * lengths[i]), (row + b) * K + column);
    return cache.pages.map(({ rows, layers }) => {
      const all = new Int32Array(B); // rows that do not see the page read its row 0, hidden
      for (let b = 0; b < counts[i]; b++) all[row + b] = rows ? rows[b] : b;
      return { rows: all, layers };
    });
  });
  return { pages, seen };
}
