/** Decodes picture files in a browser, with the integers of PIL as far as the browser's decoders have them. */
import { toRgb } from '@blip2/data-captions';
import type { RgbImage } from '@blip2/data-captions';

/** A canvas of more pixels fails in some browsers. */
const MOST_PIXELS = 50_000_000;

/** Colour profiles are ignored, photos are turned upright, transparency is blended onto white. @throws Error that names the file */
export async function decode(file: Blob, name: string): Promise<RgbImage> {
  const bitmap = await createImageBitmap(file, {
    colorSpaceConversion: 'none',
    premultiplyAlpha: 'none',
    imageOrientation: 'from-image',
  }).catch(() => {
    throw new Error(`${name}: this browser cannot decode it; use a PNG, JPEG or WebP picture`);
  });
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS)
    throw new Error(
      `${name}: expected at most ${MOST_PIXELS} pixels, found ${width * height}; make it smaller`,
    );
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })!;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const seen = new Uint8Array(data.buffer);
  const rgba = isOpaque(seen) ? seen : ((await exact(file, seen.length)) ?? seen);
  const { data: rgb } = toRgb({ data: rgba, width, height, channels: 4 });
  return { data: rgb, width, height };
}

function isOpaque(rgba: Uint8Array): boolean {
  for (let i = 3; i < rgba.length; i += 4) if (rgba[i] !== 255) return false;
  return true;
}

/** RGBA of a transparent picture, which a canvas rounds; undefined in browsers that cannot do it (then a level may differ by 1). */
async function exact(file: Blob, size: number): Promise<Uint8Array | undefined> {
  if (typeof ImageDecoder === 'undefined') return undefined;
  try {
    const decoder = new ImageDecoder({
      data: await file.arrayBuffer(),
      type: file.type,
      colorSpaceConversion: 'none',
    });
    const { image } = await decoder.decode();
    const { format } = image;
    if ((format !== 'RGBA' && format !== 'BGRA') || image.allocationSize() !== size) return undefined;
    const rgba = new Uint8Array(size);
    await image.copyTo(rgba);
    image.close();
    decoder.close();
    return format === 'RGBA' ? rgba : swapped(rgba);
  } catch {
    return undefined;
  }
}

/** BGRA as RGBA, in place. */
function swapped(pixels: Uint8Array): Uint8Array {
  for (let i = 0; i < pixels.length; i += 4) [pixels[i], pixels[i + 2]] = [pixels[i + 2]!, pixels[i]!];
  return pixels;
}
