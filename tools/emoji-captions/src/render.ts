// Renders drawings to pixels with sharp (librsvg), which renders all rows of the index; another renderer crashed on
// some.
import sharp from 'sharp';
import type { Sharp } from 'sharp';
import type { EmojiRow } from './emoji-index';

/** The vector drawing scaled to `size` pixels, on white, three channels. */
function drawing(row: Pick<EmojiRow, 'svg'>, size: number): Sharp {
  const side = Math.max(...viewBox(row.svg));
  const density = Math.min(2400, Math.max(1, (72 * size) / side)); // librsvg: 72 dpi is one pixel per unit
  return sharp(Buffer.from(row.svg), { density })
    .resize(size, size, { fit: 'contain', background: '#ffffff' })
    .flatten({ background: '#ffffff' })
    .toColourspace('srgb')
    .removeAlpha();
}

function viewBox(svg: string): [width: number, height: number] {
  const [, , width, height] = /viewBox="([^"]+)"/.exec(svg)?.[1].split(' ').map(Number) ?? [];
  if (!(width > 0 && height > 0))
    throw new Error(`emoji-captions: a drawing has no viewBox: ${svg.slice(0, 80)}`);
  return [width, height];
}

/** Raw RGB bytes [size, size, 3] on white. */
export async function renderPixels(row: Pick<EmojiRow, 'svg'>, size: number): Promise<Uint8Array> {
  const pixels = await drawing(row, size).raw().toBuffer();
  if (pixels.length !== size * size * 3)
    throw new Error(`emoji-captions: expected ${size}×${size} RGB, found ${pixels.length} bytes`);
  return pixels;
}

/** A PNG file [size, size] RGB on white. */
export async function renderPng(row: Pick<EmojiRow, 'svg'>, size: number): Promise<Buffer> {
  return drawing(row, size).png({ compressionLevel: 9 }).toBuffer();
}

/** Runs `work` on every item, a few at a time; results have the order of the items. */
export async function mapPool<T, R>(
  items: T[],
  work: (item: T, i: number) => Promise<R>,
  inFlight = 4,
): Promise<R[]> {
  const results = new Array<R>(items.length);
  let next = 0;
  const lane = async () => {
    for (let i = next++; i < items.length; i = next++) results[i] = await work(items[i], i);
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  return results;
}
