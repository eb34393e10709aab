/** Small copies of pictures for HTML pages. */
import sharp from 'sharp';
import type { DecodeOptions } from './decode-image';
import { decodeImage } from './decode-image';

/** Smaller pictures are enlarged, so that something can be seen. */
const TINY = 32;

/**
 * A data: address of the picture as the model sees it, upright and without transparency, as WebP that fits into a square of
 * `side` pixels. Undefined if it cannot be read: who trains or checks names such a picture.
 */
export async function thumbnail(
  image: string,
  side: number,
  decoding?: DecodeOptions,
): Promise<string | undefined> {
  try {
    const { data, width, height } = await decodeImage(image, decoding);
    const small = sharp(data, { raw: { width, height, channels: 3 } }).resize(side, side, {
      fit: 'inside',
      withoutEnlargement: Math.min(width, height) > TINY,
    });
    return `data:image/webp;base64,${(await small.webp({ quality: 80 }).toBuffer()).toString('base64')}`;
  } catch {
    return undefined;
  }
}
