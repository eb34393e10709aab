// The cache of keys and values during decoding. L layers, D hidden size.
import { pickPages } from '@blip2/nn';
import type { CachePage, KvPage } from '@blip2/nn';

export type { CachePage };

/**
 * Keys and values of the positions so far. Immutable: `decode` returns a new cache, which shares the pages of the previous one.
 * Dispose of a page only when no cache contains it any more.
 */
export interface KvCache {
  readonly length: number;
  /** In order of position; each call of `decode` adds one. */
  readonly pages: readonly CachePage[];
}

/** The pages of a cache whose row b is row picked[b] of this one. Only row numbers are copied. */
export function pickRows({ pages }: KvCache, picked: Int32Array | undefined): readonly CachePage[] {
  return picked ? pickPages(pages, picked) : pages;
}

/** The keys and values of layer i. */
export function layerPages(pages: readonly CachePage[], i: number): KvPage[] {
  return pages.map(({ rows, layers }) => ({ k: layers[i].k, v: layers[i].v, rows }));
}

/** @throws Error unless the cache has `depth` layers and B rows (after `picked`, if any, has selected them) */
export function checkCache(
  cache: KvCache,
  picked: Int32Array | undefined,
  [depth, B]: [depth: number, B: number],
): void {
  const [first] = cache.pages;
  const held = first.rows?.length ?? first.layers[0].k.shape[0];
  const rows = picked?.length ?? held;
  const layers = first.layers.length;
  if (layers !== depth || rows !== B)
    throw new Error(
      `decode: expected a cache of ${depth} layers and ${B} rows, found ${layers} layers and ${rows} rows` +
        (picked ? ' (cacheRows)' : ''),
    );
  const bad = picked?.find((row) => row < 0 || row >= held);
  if (bad !== undefined)
    throw new Error(`decode: expected cacheRows in 0 … ${held - 1} (rows of the cache), found ${bad}`);
}
