/**
 * Decodes image files to 8-bit RGB, with the integers of PIL's `Image.open(file)` … `.convert("RGB")`: colour profiles are
 * ignored, grey is repeated, 16-bit grey is clipped (not scaled), 16-bit colour keeps its high byte, CMYK is converted by
 * PIL's formula, animations give their first frame. AVIF differs by up to 9 levels, see the README.
 */
import type { Metadata, Sharp, SharpOptions } from 'sharp';
import sharp from 'sharp';
import { avifColours, untransformed } from './avif';
import { bmpHeader, decodeBmp } from './bmp';
import { memoryBudget } from './decode-budget';
import { DataError, reason } from './errors';
import { decodeGif, gifHeader } from './gif';
import { formatOf, unsupported } from './image-format';
import type { ImageFormat } from './image-format';
import { readImage } from './image-source';
import type { ImageOrientation } from './orientation';
import { toRgb } from './samples';
import type { Alpha, RgbImage, Samples } from './samples';
import { avifOrientation, orientationOf, pngExif, turn } from './orientation';

/** How an image file becomes pixels. */
export interface DecodeOptions {
  /**
   * Transparent images: `white` (default) blends onto white, as transformers 5.23 does; `drop` ignores the transparency,
   * as PIL's convert("RGB") and transformers up to 5.17 do.
   */
  alpha?: Alpha;
  /**
   * Photos with an EXIF orientation: `exif` (default) turns them upright, as transformers' `load_image` and datasets do;
   * `ignore` leaves them as PIL's `Image.open` does.
   */
  image_orientation?: ImageOrientation;
  /** Images with more pixels are refused before they are decoded; 178,956,970 by default, as in PIL. */
  max_pixels?: number;
}

/** What the header of an image says. */
export interface ImageHeader {
  format: ImageFormat;
  /** Before it is turned upright. */
  width: number;
  height: number;
  /** EXIF orientation, 1 … 8. */
  orientation: number;
  /** Of sharp, for formats that it decodes. */
  metadata?: Metadata;
}

/** The size at which PIL refuses an image as a decompression bomb. */
const MAX_PIXELS = 178_956_970;
const INPUT: SharpOptions = { limitInputPixels: MAX_PIXELS, failOn: 'error', ignoreIcc: true };

/** Memory of the images that are decoded at a time. One image of the largest size needs more and is decoded alone. */
const budget = memoryBudget(512 * 2 ** 20);

/**
 * Decodes an image by its name (a path, or a place in a larger file), or from its bytes.
 * @throws DataError when it cannot be read, is not a supported image, is damaged or is too large
 */
export function decodeImage(image: string | Uint8Array, options: DecodeOptions = {}): Promise<RgbImage> {
  return withImage(image, options, (decoded) => decoded);
}

/**
 * Decodes an image and calls `use`; until that has ended, the image counts against the memory of decoding.
 * @throws as decodeImage
 */
export async function withImage<T>(
  image: string | Uint8Array,
  options: DecodeOptions,
  use: (decoded: RgbImage, header: ImageHeader) => T | Promise<T>,
): Promise<T> {
  const name = typeof image === 'string' ? image : 'image';
  const file = typeof image === 'string' ? await readImage(image) : image;
  const format = formatOf(file);
  if (!format) throw new DataError(`${name}: ${unsupported(file)}`);
  const bytes = format === 'avif' ? untransformed(file) : file;
  const damaged = (error: unknown): never => {
    throw new DataError(`${name}: ${decodingFault(error)}`);
  };
  const header = await headerOf(bytes, format, format === 'avif' ? avifOrientation(file) : undefined).catch(
    damaged,
  );
  const pixels = header.width * header.height;
  const { max_pixels = MAX_PIXELS } = options;
  if (pixels > max_pixels)
    throw new DataError(`${name}: the image has ${pixels} pixels, more than ${max_pixels}; make it smaller`);
  return budget(memoryOf(header, options), async () => {
    const samples = await samplesOf(bytes, header, options).catch(damaged);
    const { data, width, height } = turn(toRgb(samples, options.alpha), turnOf(header, options));
    return use({ data, width, height }, header);
  });
}

/** Why an image could not be decoded, from an error of sharp or of a decoder here. */
export function decodingFault(error: unknown): string {
  const found = reason(error);
  if (/out of memory|allocation failed/i.test(found))
    return 'there is no memory to decode the image; end other programs, or allow this one more memory';
  // other words of libvips are those of any of its threads, or "Unknown error": not the same twice
  const why = /pixel/.test(found) ? found : 'it is damaged or cut off';
  return `the image cannot be decoded (${why}); replace it, or remove its row from the data`;
}

async function headerOf(bytes: Uint8Array, format: ImageFormat, turned?: number): Promise<ImageHeader> {
  if (format === 'bmp' || format === 'gif') {
    const { width, height } = format === 'bmp' ? bmpHeader(bytes) : gifHeader(bytes);
    const pixels = width * height;
    if (pixels === 0) throw new Error('it has no pixels');
    if (pixels > MAX_PIXELS) throw new Error(`it has ${pixels} pixels, more than ${MAX_PIXELS}`);
    const metadata = await sharp(bytes, INPUT)
      .metadata()
      .catch(() => undefined); // pages, transparency
    return { format, width, height, orientation: 1, metadata };
  }
  const metadata = await sharp(bytes, INPUT).metadata();
  const { width, height } = metadata;
  return { format, width, height, orientation: turned ?? orientationIn(bytes, format, metadata), metadata };
}

function orientationIn(bytes: Uint8Array, format: ImageFormat, metadata: Metadata): number {
  if (format === 'tiff') return metadata.orientation ?? 1;
  return orientationOf(format === 'png' ? pngExif(bytes) : metadata.exif, metadata.xmp);
}

/** The orientation with which the samples have to be turned. PIL always turns TIFF upright. */
function turnOf({ format, orientation }: ImageHeader, { image_orientation }: DecodeOptions): number {
  return format === 'tiff' || image_orientation !== 'ignore' ? orientation : 1;
}

/** Bytes of the decoded samples and of the arrays made from them. */
function memoryOf(header: ImageHeader, options: DecodeOptions): number {
  const { width, height, metadata: { channels = 4, depth = 'uchar' } = {} } = header;
  const samples = channels * (depth === 'uchar' ? 1 : 2);
  const turned = turnOf(header, options) > 1 || header.format === 'avif' ? 3 : 0; // AVIF: or its chroma
  return width * height * (samples + (channels === 3 ? 0 : 3) + turned);
}

/** Samples with colours that PIL converts by its own rules are converted here, the others by sharp. */
async function samplesOf(bytes: Uint8Array, header: ImageHeader, { alpha }: DecodeOptions): Promise<Samples> {
  if (header.format === 'bmp') return decodeBmp(bytes);
  if (header.format === 'gif') return decodeGif(bytes, alpha === 'drop');
  const image = sharp(bytes, INPUT);
  const { space, channels } = header.metadata!;
  if (space === 'cmyk') return fromCmyk(await raw(image.pipelineColourspace('cmyk').toColourspace('cmyk')));
  if (isGrey16(bytes, header)) return fromGrey16(await raw(image.toColourspace('grey16'), 'ushort'));
  if (alpha === 'drop' && (channels === 2 || channels === 4)) image.removeAlpha();
  const samples = await raw(image);
  if (header.format !== 'avif') return samples;
  return avifColours(samples, bytes);
}

/** Whether PIL opens it as 16-bit grey. sharp reports the space of a transparent PNG as that of its converted samples. */
function isGrey16(bytes: Uint8Array, { format, metadata }: ImageHeader): boolean {
  if (format === 'png') return bytes[24] === 16 && bytes[25] === 0;
  return metadata?.space === 'grey16' && metadata.channels === 1;
}

async function raw(image: Sharp, depth: 'uchar' | 'ushort' = 'uchar'): Promise<Samples> {
  const { data, info } = await image.raw({ depth }).toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height, channels: info.channels };
}

/** 16-bit grey, clipped: the first channel of each pixel. */
function fromGrey16({ data, width, height, channels }: Samples): Samples {
  const out = new Uint8Array(width * height);
  for (let i = 0, at = 0; i < out.length; i++, at += 2 * channels) out[i] = data[at + 1] > 0 ? 255 : data[at];
  return { data: out, width, height, channels: 1 };
}

/** CMYK to RGB, in place. */
function fromCmyk({ data, width, height, channels }: Samples): Samples {
  for (let i = 0, o = 0; i < data.length; i += channels) {
    const light = 255 - data[i + 3];
    for (let c = 0; c < 3; c++) data[o++] = Math.max(0, light - div255(data[i + c] * light + 128));
  }
  return { data: data.subarray(0, 3 * width * height), width, height, channels: 3 };
}

/** PIL's rounded division of x − 128 by 255. */
const div255 = (x: number) => (x + (x >> 8)) >> 8;
