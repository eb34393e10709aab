/** The format and size of one image, and anything unusual about it. */
import { createHash } from 'node:crypto';
import type { DecodeOptions, ImageHeader } from '../decode-image';
import type { RgbImage } from '../samples';
import { withImage } from '../decode-image';
import { readImage } from '../image-source';
import { faultOf } from '../image-errors';

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
export async function imageFacts(image: string, decoding: DecodeOptions = {}): Promise<ImageFacts> {
  try {
    const bytes = await readImage(image);
    const id = createHash('sha256').update(bytes).digest('hex');
    try {
      return await withImage(bytes, decoding, (decoded, header) => ({
        id,
        width: decoded.width,
        height: decoded.height,
        format: header.format,
        odd: oddities(decoded, header, decoding),
      }));
    } catch (error) {
      return { id, odd: [], unreadable: faultOf(image, error) };
    }
  } catch (error) {
    return { odd: [], unreadable: faultOf(image, error) };
  }
}

function oddities({ data, width, height }: RgbImage, header: ImageHeader, options: DecodeOptions): string[] {
  const { orientation, format } = header;
  const { pages = 1, space, depth = 'uchar', hasAlpha } = header.metadata ?? {};
  const lies = orientation > 1 && options.image_orientation === 'ignore' && format !== 'tiff';
  return [
    Math.min(width, height) < SMALL_SIDE && `small: ${width}×${height}`,
    Math.max(width / height, height / width) > LONG_RATIO && `long: ${width}×${height} will be squeezed`,
    pages > 1 && `${pages} frames or pages: only the first is used`,
    lies && `EXIF orientation ${orientation} is ignored: the image lies on its side, or is mirrored`,
    space === 'cmyk' && 'CMYK colours',
    depth !== 'uchar' && `${depth} samples`,
    hasAlpha && `transparent: ${options.alpha === 'drop' ? 'transparency is ignored' : 'blended onto white'}`,
    isFlat(data) && 'one colour only',
  ].filter((text): text is string => typeof text === 'string');
}

/** Whether all pixels are equal. */
function isFlat(data: Uint8Array): boolean {
  for (let i = 3; i < data.length; i++) if (data[i] !== data[i - 3]) return false;
  return true;
}
