/** The orientation of pictures: where it is found, and turning them. Reference: PIL's `ImageOps.exif_transpose`. */
import { inflateSync } from 'node:zlib';
import type { Samples } from './samples';

/** `exif`: pictures are turned upright, as transformers' `load_image` and datasets do; `ignore`: as PIL's `Image.open`. */
export const ORIENTATIONS = ['exif', 'ignore'] as const;
export type ImageOrientation = (typeof ORIENTATIONS)[number];

/** The orientation, 1 … 8, that EXIF data name; from XMP where EXIF has none, as in PIL. */
export function orientationOf(exif: Buffer | undefined, xmp: Buffer | undefined): number {
  const found = exif && exifOrientation(exif);
  const value = found ?? Number(/tiff:Orientation(?:="|>)([0-9])/.exec(xmp?.toString('latin1') ?? '')?.[1]);
  return value >= 1 && value <= 8 ? value : 1;
}

const TAG = 0x0112;
const SHORT = 3;
const LONG = 4;

/** Tag Orientation of the first directory; undefined where it is absent. */
function exifOrientation(exif: Buffer): number | undefined {
  const tiff = exif.subarray(exif.indexOf('Exif\0\0') === 0 ? 6 : 0);
  const little = tiff.toString('latin1', 0, 2) === 'II';
  const read = (at: number, bytes: number) =>
    at + bytes > tiff.length ? 0 : little ? tiff.readUIntLE(at, bytes) : tiff.readUIntBE(at, bytes);
  const directory = read(4, 4);
  const count = read(directory, 2);
  for (let i = 0; i < count; i++) {
    const at = directory + 2 + 12 * i;
    if (at + 12 > tiff.length) return undefined;
    const kind = read(at + 2, 2);
    if (read(at, 2) === TAG && (kind === SHORT || kind === LONG)) return read(at + 8, kind === SHORT ? 2 : 4);
  }
  return undefined;
}

/** The EXIF data of a PNG file, which may be after the pixels or, written by ImageMagick, in a text. */
export function pngExif(bytes: Uint8Array): Buffer | undefined {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let profile: Buffer | undefined;
  for (let at = 8; at + 8 <= file.length; at += 12 + file.readUInt32BE(at)) {
    const kind = file.toString('latin1', at + 4, at + 8);
    const body = file.subarray(at + 8, at + 8 + file.readUInt32BE(at));
    if (kind === 'eXIf') return body;
    if (/^[tz]TXt$/.test(kind) && body.indexOf(PROFILE) === 0) profile = profileOf(body, kind === 'zTXt');
  }
  return profile;
}

const PROFILE = 'Raw profile type exif\0';

/** Hexadecimal digits behind three lines: an empty one, the name and the length. */
function profileOf(body: Buffer, compressed: boolean): Buffer | undefined {
  try {
    const text = compressed
      ? inflateSync(body.subarray(PROFILE.length + 1), { maxOutputLength: HEAD * 4 })
      : body.subarray(PROFILE.length);
    return Buffer.from(text.toString('latin1').split('\n').slice(3).join(''), 'hex');
  } catch {
    return undefined; // damaged or very long: as if there were none
  }
}

/** EXIF orientation that is equal to the rotation (irot) and mirroring (imir) of an AVIF file. */
export function avifOrientation(bytes: Uint8Array): number {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, HEAD));
  const value = (box: string) => {
    const at = head.indexOf(`\0\0\0\x09${box}`, 0, 'latin1');
    return at < 0 ? undefined : head[at + 8];
  };
  const angle = (value('irot') ?? 0) & 3;
  const axis = value('imir');
  if (axis === undefined) return [1, 8, 3, 6][angle];
  return axis & 1 ? [2, 7, 4, 5][angle] : [4, 5, 2, 7][angle];
}

/** The boxes before the pixels of an AVIF file are shorter. */
const HEAD = 1 << 16;

/** Turns a picture with this orientation upright: data [H,W,C] → [H,W,C], or [W,H,C] from 5 on. */
export function turn(image: Samples, orientation: number): Samples {
  const { data, width: w, height: h, channels } = image;
  const last = w * h - 1;
  // The source of the first pixel, and the steps to the source of the next pixel and of the next row.
  const [first, right, down] = {
    1: [0, 1, w],
    2: [w - 1, -1, w],
    3: [last, -1, -w],
    4: [last - w + 1, 1, -w],
    5: [0, w, 1],
    6: [last - w + 1, -w, 1],
    7: [last, -w, -1],
    8: [w - 1, w, -1],
  }[orientation]!;
  if (orientation === 1) return image;
  const [width, height] = orientation < 5 ? [w, h] : [h, w];
  const out = new Uint8Array(data.length);
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0, from = channels * (first + y * down); x < width; x++, from += channels * right)
      for (let c = 0; c < channels; c++) out[o++] = data[from + c];
  }
  return { data: out, width, height, channels };
}
