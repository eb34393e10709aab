/**
 * Decodes image files to 8-bit RGB, with the integers of PIL's `Image.open(file).convert("RGB")`: EXIF orientation and
 * colour profiles are ignored, grey is repeated, 16-bit grey is clipped (not scaled), 16-bit colour keeps its high byte,
 * CMYK is converted by PIL's formula, animations give their first frame. Known difference: fully transparent pixels of
 * GIFs are black (PIL gives them a palette colour).
 */
import type { SharpOptions } from 'sharp';
import sharp from 'sharp';
import { DataError, reason } from './errors';
import { readImage } from './image-source';

/** Treatment of transparency: `drop` ignores it, `white` blends onto white. */
export type Alpha = 'drop' | 'white';

/** An 8-bit image, rows of RGB triples: data [height, width, 3]. */
export interface RgbImage {
  data: Uint8Array;
  width: number;
  height: number;
}

/** The size at which PIL refuses an image as a decompression bomb. */
const MAX_PIXELS = 178_956_970;
/** The signature of PNG files. */
const PNG = '\x89PNG\r\n\x1a\n';
const FORMATS = 'JPEG, PNG, WebP, GIF, TIFF or AVIF';

/**
 * Decodes an image by its name (a path, or a place in a larger file), or from its bytes.
 * @throws DataError when it cannot be read, is not a supported image, is damaged or is too large
 */
export async function decodeImage(image: string | Uint8Array, alpha: Alpha = 'white'): Promise<RgbImage> {
  const name = typeof image === 'string' ? image : 'image';
  const bytes = typeof image === 'string' ? await readImage(image) : image;
  if (!isSupported(bytes)) {
    const found = bytes.length === 0 ? 'an empty file' : 'content of another kind';
    throw new DataError(
      `${name}: expected a ${FORMATS} image, found ${found}; convert it, or remove its row from the data`,
    );
  }
  try {
    const input = { limitInputPixels: MAX_PIXELS, failOn: 'error', ignoreIcc: true } as const;
    return toRgb(await rawPixels(bytes, input), alpha);
  } catch (error) {
    throw new DataError(
      `${name}: the image cannot be decoded (${reason(error)}); it is damaged, cut off or too large: replace it, or remove its row from the data`,
    );
  }
}

/** Whether the first bytes are those of a supported format, so that no other decoder of sharp is used. */
function isSupported(bytes: Uint8Array): boolean {
  const head = headOf(bytes);
  return (
    head.startsWith('\xff\xd8\xff') ||
    head.startsWith(PNG) ||
    head.startsWith('GIF8') ||
    (head.startsWith('RIFF') && head.startsWith('WEBP', 8)) ||
    ['II*\0', 'MM\0*', 'II+\0', 'MM\0+'].some((magic) => head.startsWith(magic)) ||
    (head.startsWith('ftyp', 4) && /avif|avis/.test(head.slice(8)))
  );
}

const headOf = (bytes: Uint8Array) => String.fromCharCode(...bytes.subarray(0, 32));

/** Kinds of samples; PIL converts 16-bit grey and CMYK by its own rules. */
type Kind = 'grey16' | 'cmyk' | 'rgb';
type Raw = RgbImage & { channels: number; kind: Kind };

/** The kind of an image's samples. A PNG header has fixed offsets; JPEG and TIFF need sharp's parser. */
async function kindOf(bytes: Uint8Array, input: SharpOptions): Promise<Kind> {
  const head = headOf(bytes);
  if (head.startsWith(PNG)) return bytes[24] === 16 && bytes[25] === 0 ? 'grey16' : 'rgb';
  if (!/^(\xff\xd8|II|MM)/.test(head)) return 'rgb';
  const { space, channels } = await sharp(bytes, input).metadata();
  if (space === 'cmyk') return 'cmyk';
  return space === 'grey16' && channels === 1 ? 'grey16' : 'rgb';
}

/** Samples decoded by sharp, in the colour space from which PIL's integers can be computed. */
async function rawPixels(bytes: Uint8Array, input: SharpOptions): Promise<Raw> {
  const kind = await kindOf(bytes, input);
  let image = sharp(bytes, input);
  if (kind === 'cmyk') image = image.pipelineColourspace('cmyk').toColourspace('cmyk').raw();
  else if (kind === 'grey16') image = image.toColourspace('grey16').raw({ depth: 'ushort' });
  else image = image.raw({ depth: 'uchar' });
  const { data, info } = await image.toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height, channels: info.channels, kind };
}

function toRgb({ data, width, height, channels, kind }: Raw, alpha: Alpha): RgbImage {
  const n = width * height;
  if (kind === 'rgb' && channels === 3) {
    return { data: new Uint8Array(data.buffer, data.byteOffset, 3 * n), width, height };
  }
  const out = new Uint8Array(3 * n);
  if (kind === 'grey16') {
    const samples = new Uint16Array(data.buffer.slice(data.byteOffset, data.byteOffset + 2 * n * channels));
    for (let i = 0; i < n; i++) out.fill(Math.min(samples[channels * i], 255), 3 * i, 3 * i + 3);
  } else if (kind === 'cmyk') {
    for (let i = 0; i < n; i++) {
      const light = 255 - data[channels * i + 3];
      for (let c = 0; c < 3; c++)
        out[3 * i + c] = Math.max(0, light - div255(data[channels * i + c] * light + 128));
    }
  } else {
    const colours = channels < 3 ? 1 : 3;
    const opaque = alpha === 'drop' || channels === colours;
    for (let i = 0; i < n; i++) {
      const a = opaque ? 255 : data[channels * i + colours];
      for (let c = 0; c < 3; c++) {
        const value = data[channels * i + (colours === 3 ? c : 0)];
        out[3 * i + c] = opaque ? value : overWhite(value, a);
      }
    }
  }
  return { data: out, width, height };
}

/** PIL's rounded division of x − 128 by 255. */
const div255 = (x: number) => (x + (x >> 8)) >> 8;

/** PIL's alpha_composite of a value with alpha `a` (0 … 255) over opaque white, in its 7-bit fixed point. */
function overWhite(value: number, a: number): number {
  const x = (value * a + 255 * (255 - a)) * 128 + (0x80 << 7);
  return (((x >> 8) + x) >> 8) >> 7;
}
