/** The format and size of one image, and anything unusual about it. */
import { createHash } from 'node:crypto';
import sharp from 'sharp';
import { decodeImage } from '../decode-image';
import { reason } from '../errors';
import { readImage } from '../image-source';

export interface ImageFacts {
  id?: string;
  width?: number;
  height?: number;
  format?: string;
  /** Why it cannot be used. */
  unreadable?: string;
  /** Unusual properties, which may be intended. */
  odd: string[];
}

/** A shorter image has too few pixels for the patch grid; stretching a longer one to a square distorts it badly. */
const SMALL_SIDE = 32;
const LONG_RATIO = 4;

/** Reads, hashes and decodes a whole image, as training does. Never throws. */
export async function imageFacts(image: string): Promise<ImageFacts> {
  try {
    const bytes = await readImage(image);
    const id = createHash('sha256').update(bytes).digest('hex');
    try {
      const { data, width, height } = await decodeImage(bytes);
      const { format, pages = 1, orientation = 1, space, depth, hasAlpha } = await sharp(bytes).metadata();
      const odd = [
        Math.min(width, height) < SMALL_SIDE && `small: ${width}×${height}`,
        Math.max(width / height, height / width) > LONG_RATIO && `long: ${width}×${height} will be squeezed`,
        pages > 1 && `${pages} frames or pages: only the first is used`,
        orientation > 1 && `EXIF orientation ${orientation}: it is ignored, so the picture lies on its side`,
        space === 'cmyk' && 'CMYK colours',
        depth !== 'uchar' && `${depth} samples`,
        hasAlpha && 'transparent: blended onto white',
        isFlat(data) && 'one colour only',
      ].filter((text) => text !== false);
      return { id, width, height, format, odd };
    } catch (error) {
      return { id, odd: [], unreadable: reason(error).replace(/^image: /, '') };
    }
  } catch (error) {
    return { odd: [], unreadable: reason(error) };
  }
}

/** Whether all pixels are equal. */
function isFlat(data: Uint8Array): boolean {
  for (let i = 3; i < data.length; i++) if (data[i] !== data[i - 3]) return false;
  return true;
}
