/** Pictures small enough to be embedded in the page. */
import type { DecodeOptions } from '@blip2/data-captions';
import { decodeImage, readImage, resizeBicubic } from '@blip2/data-captions';
import { encodePng } from '../evaluation/png';

/** Files up to this size in a format that every browser shows, and turns upright, are embedded unchanged. */
const SMALL = 16 * 1024;
const SIDE = 176;

/** A data: address of the picture as the run sees it; undefined when the file is gone or unreadable. */
export async function pictureUri(file: string, decoding: DecodeOptions = {}): Promise<string | undefined> {
  try {
    const bytes = Buffer.from(await readImage(file));
    const type = bytes.length <= SMALL && decoding.image_orientation !== 'ignore' && webType(bytes);
    if (type) return `data:${type};base64,${bytes.toString('base64')}`;
    const image = await decodeImage(bytes, decoding);
    const factor = Math.min(1, SIDE / Math.max(image.width, image.height));
    const [width, height] = [image.width, image.height].map((side) => Math.max(1, Math.round(side * factor)));
    const small = resizeBicubic(image, width, height);
    return `data:image/png;base64,${encodePng(small.data, width, height).toString('base64')}`;
  } catch {
    return undefined;
  }
}

function webType(bytes: Buffer): string | undefined {
  const head = bytes.subarray(0, 12).toString('latin1');
  if (head.startsWith('\x89PNG')) return 'image/png';
  if (head.startsWith('\xff\xd8\xff')) return 'image/jpeg';
  if (head.startsWith('RIFF') && head.endsWith('WEBP')) return 'image/webp';
  return undefined;
}
