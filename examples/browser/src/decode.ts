/** Decodes picture files in a browser, with the integers of PIL as far as the browser's decoders have them. */
import { toRgb } from '@blip2/data-captions';
import type { RgbImage } from '@blip2/data-captions';

/** A file that cannot be used as a picture. */
export class PictureError extends Error {}

/** A canvas of more pixels fails in some browsers. */
const MOST_PIXELS = 50_000_000;

/**
 * Colour profiles are ignored, photos are turned upright, transparency is blended onto white; a canvas rounds transparent colours, but not so
 * much that a level on white changes. @throws PictureError that names the file
 */
export async function decode(file: Blob, name: string): Promise<RgbImage> {
  const bitmap = await createImageBitmap(file, {
    colorSpaceConversion: 'none',
    premultiplyAlpha: 'none',
    imageOrientation: 'from-image',
  }).catch(() => {
    throw new PictureError(`${name}: this browser cannot decode it; use a PNG, JPEG or WebP picture`);
  });
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS)
    throw new PictureError(
      `${name}: expected at most ${MOST_PIXELS} pixels, found ${width * height}; make it smaller`,
    );
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })!;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const { data: rgb } = toRgb({ data: new Uint8Array(data.buffer), width, height, channels: 4 });
  return { data: rgb, width, height };
}
