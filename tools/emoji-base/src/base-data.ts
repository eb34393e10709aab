// The pretraining images in memory: one byte array of pixels, one record per image; cached in a file after the first
// rendering.
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import {
  emojiIndex,
  mapPool,
  peopleGrid,
  renderPixels,
  sourceVersions,
  splitGrid,
} from '@blip2/emoji-captions';
import { IMAGE_SIZE } from './model-files';
import { candidateRows, finalRows } from './selection';
import type { Use } from './selection';

export interface BaseItem {
  /** Unicode label, the caption to learn. */
  label: string;
  /** The concept: equal in all styles. */
  hex: string;
  style: string;
  tags: string[];
  group: string;
  use: Use;
}

export interface BaseData {
  items: BaseItem[];
  /** RGB bytes [items, 64, 64, 3] on white. */
  pixels: Uint8Array;
  /** Number of excluded rows per rule. */
  left: Record<string, number>;
}

/** Bytes of one image. */
export const IMAGE_BYTES = IMAGE_SIZE * IMAGE_SIZE * 3;

/** Increase it when selection or layout change, so that older caches are not used. */
const LAYOUT = 3;

/** Reads the cache `file` (and `file`.json), or renders about 11,800 drawings (half a minute) and writes it. */
export async function loadBaseData(
  file: string,
  onNote: (text: string) => void = () => {},
): Promise<BaseData> {
  const key = createHash('sha256')
    .update(JSON.stringify({ LAYOUT, IMAGE_SIZE, sources: sourceVersions() }))
    .digest('hex');
  const cached = await readCache(file, key);
  if (cached) return cached;
  const start = performance.now();
  const data = await render();
  onNote(`rendered ${data.items.length} images in ${((performance.now() - start) / 1000).toFixed(0)} s`);
  await writeCache(file, key, data);
  return data;
}

/** Indices of the items with this use. */
export function itemsOf(data: BaseData, use: Use): number[] {
  return data.items.flatMap((item, i) => (item.use === use ? [i] : []));
}

/** The bytes of image i. */
export function imageBytes(data: BaseData, i: number): Uint8Array {
  return data.pixels.subarray(i * IMAGE_BYTES, (i + 1) * IMAGE_BYTES);
}

async function render(): Promise<BaseData> {
  const rows = emojiIndex();
  const candidates = candidateRows(rows, splitGrid(peopleGrid(rows)));
  const images = await mapPool(candidates.rows, ({ row }) => renderPixels(row, IMAGE_SIZE));
  const digests = images.map((image) => createHash('sha256').update(image).digest('base64'));
  const { rows: selected, index, left } = finalRows(candidates, digests);
  const pixels = new Uint8Array(index.length * IMAGE_BYTES);
  index.forEach((from, to) => pixels.set(images[from], to * IMAGE_BYTES));
  const items = selected.map(({ row: { label, hex, style, tags, group }, use }) => ({
    label,
    hex,
    style,
    tags,
    group,
    use,
  }));
  return { items, pixels, left };
}

interface Cache {
  key: string;
  digest: string;
  left: Record<string, number>;
  items: BaseItem[];
}

async function readCache(file: string, key: string): Promise<BaseData | undefined> {
  try {
    const cache = JSON.parse(await readFile(`${file}.json`, 'utf8')) as Cache;
    if (cache.key !== key) return undefined;
    const pixels = await readFile(file);
    const whole = createHash('sha256').update(pixels).digest('hex') === cache.digest;
    return whole ? { items: cache.items, pixels, left: cache.left } : undefined;
  } catch {
    return undefined; // absent or damaged: render
  }
}

async function writeCache(file: string, key: string, { items, pixels, left }: BaseData): Promise<void> {
  const digest = createHash('sha256').update(pixels).digest('hex');
  await mkdir(dirname(file), { recursive: true });
  await rm(`${file}.json`, { force: true });
  await writeFile(`${file}.partial`, pixels);
  await rename(`${file}.partial`, file);
  await writeFile(`${file}.json`, JSON.stringify({ key, digest, left, items } satisfies Cache));
}
