// The cache of keys and values that decoding goes on from. L layers, D hidden size.
import type { KvPage, Tensor3D } from '@blip2/nn';

/**
 * Keys and values of the positions seen so far; a value, never changed: `decode` returns a new one, which shares the pages of
 * the one it went on from. So a page may be disposed of only with the last cache that has it.
 */
export interface KvCache {
  readonly length: number;
  /** In order of position: what one call of `decode` added. */
  readonly pages: readonly CachePage[];
}

export interface CachePage {
  /** The row of this page that each row of the cache goes on from; without it, each its own. */
  readonly rows?: Int32Array;
  /** Of each layer, [rows of the page, T, D]. */
  readonly layers: readonly { readonly k: Tensor3D; readonly v: Tensor3D }[];
}

/** How many rows a cache has. */
function rowsOf({ pages: [first] }: KvCache): number {
  return first.rows?.length ?? first.layers[0].k.shape[0];
}

/** The pages of a cache whose row b goes on from row picked[b]. Nothing is copied but row numbers. */
export function pickRows({ pages }: KvCache, picked: Int32Array | undefined): readonly CachePage[] {
  if (!picked) return pages;
  return pages.map(({ rows, layers }) => ({ rows: rows ? picked.map((row) => rows[row]) : picked, layers }));
}

/** What attention reads in layer i. */
export function layerPages(pages: readonly CachePage[], i: number): KvPage[] {
  return pages.map(({ rows, layers }) => ({ k: layers[i].k, v: layers[i].v, rows }));
}

/** Throws unless the cache has `depth` layers and, when `picked` has chosen among its rows, B of them. */
export function checkCache(
  cache: KvCache,
  picked: Int32Array | undefined,
  [depth, B]: [depth: number, B: number],
): void {
  const held = rowsOf(cache);
  const rows = picked?.length ?? held;
  const layers = cache.pages[0].layers.length;
  if (layers !== depth || rows !== B)
    throw new Error(
      `decode: expected a cache of ${depth} layers and ${B} rows, got ${layers} layers and ${rows} rows` +
        (picked ? ' (cacheRows)' : ''),
    );
  const bad = picked?.find((row) => row < 0 || row >= held);
  if (bad !== undefined)
    throw new Error(`decode: expected cacheRows in 0 … ${held - 1}, the rows of the cache, got ${bad}`);
}
