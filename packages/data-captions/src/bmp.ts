/**
 * Decodes BMP files, for which sharp has no loader, to the integers of Pillow 13 (`BmpImagePlugin.py`): 1, 4, 8, 16, 24
 * and 32 bits, RLE4 and RLE8, bit masks, top-down rows and the headers of OS/2 and of Windows 2 to 5.
 */
import type { Samples } from './samples';

interface Header {
  size: number;
  width: number;
  height: number;
  topDown: boolean;
  bits: number;
  compression: number;
  colours: number;
  /** Where masks or palette begin. */
  end: number;
  /** Where the rows begin. */
  start: number;
}

const RAW = 0;
const RLE8 = 1;
const RLE4 = 2;
const BITFIELDS = 3;
const SIZES = [12, 40, 52, 56, 64, 108, 124];

/** Width and height of a BMP file. @throws RangeError if the header is cut off; Error if it is of another kind */
export function bmpHeader(bytes: Uint8Array): Header {
  const view = viewOf(bytes);
  const size = view.getUint32(14, true);
  if (!SIZES.includes(size)) throw new Error(`unsupported BMP header of ${size} bytes`);
  const old = size === 12;
  const signed = old ? view.getUint16(20, true) : view.getInt32(22, true);
  const bits = view.getUint16(old ? 24 : 28, true);
  const colours = (old ? 0 : view.getUint32(46, true)) || 2 ** bits;
  const end = 14 + size;
  const width = old ? view.getUint16(18, true) : view.getUint32(18, true);
  const compression = old ? RAW : view.getUint32(30, true);
  let start = view.getUint32(10, true);
  const afterPalette = bits <= 8 ? colours * (old ? 3 : 4) : 0;
  if (start === 0 || start === end) start = end + afterPalette;
  const header = { size, width, height: Math.abs(signed), topDown: signed < 0, bits, compression, colours };
  return { ...header, end, start };
}

/** @throws RangeError if the file is cut off; Error if it is of a kind that PIL refuses too */
export function decodeBmp(bytes: Uint8Array): Samples {
  const header = bmpHeader(bytes);
  const { bits, compression } = header;
  if (bits <= 8) return paletted(bytes, header);
  if (compression !== RAW && compression !== BITFIELDS)
    throw new Error(`unsupported BMP compression ${compression}`);
  const masks = compression === BITFIELDS ? masksOf(bytes, header) : undefined;
  return bits === 16 ? packed(bytes, header, masks) : coloured(bytes, header, masks);
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The masks of red, green, blue and alpha; those behind a header of 40 bytes have no alpha. */
function masksOf(bytes: Uint8Array, { size }: Header): number[] {
  const count = size >= 56 ? 4 : 3;
  return Array.from({ length: count }, (_, i) => viewOf(bytes).getUint32(54 + 4 * i, true));
}

/** The bytes of each row, from the top row on. @throws RangeError if some are missing */
function* rows(bytes: Uint8Array, { width, height, bits, start, topDown }: Header): Generator<Uint8Array> {
  const stride = ((width * bits + 31) >> 3) & ~3;
  const used = Math.ceil((width * bits) / 8);
  for (let y = 0; y < height; y++) {
    const at = start + stride * (topDown ? y : height - 1 - y);
    if (at + used > bytes.length) throw new RangeError('the file is cut off');
    yield bytes.subarray(at, at + used);
  }
}

function coloured(bytes: Uint8Array, header: Header, masks?: number[]): Samples {
  const { width, height, bits } = header;
  if (bits !== 24 && bits !== 32) throw new Error(`unsupported BMP of ${bits} bits a pixel`);
  const places = masks ? bytePlaces(masks, bits) : [2, 1, 0];
  const channels = places.length;
  const data = new Uint8Array(width * height * channels);
  let o = 0;
  for (const row of rows(bytes, header)) {
    for (let at = 0; at < row.length; at += bits / 8) for (const place of places) data[o++] = row[at + place];
  }
  return { data, width, height, channels };
}

/** Which byte of a pixel holds each channel. Masks of zeros mean BGRA to PIL. */
function bytePlaces(masks: number[], bits: number): number[] {
  if (bits === 32 && masks.every((mask) => mask === 0)) return [2, 1, 0, 3];
  const present = bits === 24 || masks[3] === 0 ? masks.slice(0, 3) : masks;
  return present.map((mask) => {
    const place = [0xff, 0xff00, 0xff0000, 0xff000000].indexOf(mask);
    if (place < 0 || place >= bits / 8) throw new Error('unsupported BMP masks');
    return place;
  });
}

/** 16 bits a pixel: 5 or 6 for each channel, stretched to 0 … 255 and rounded down. */
function packed(bytes: Uint8Array, header: Header, masks = [0x7c00, 0x3e0, 0x1f]): Samples {
  const { width, height } = header;
  const green = { '31744,992,31': 31, '63488,2016,31': 63 }[masks.slice(0, 3).join()];
  if (green === undefined) throw new Error('unsupported BMP masks');
  const data = new Uint8Array(width * height * 3);
  let o = 0;
  for (const row of rows(bytes, header)) {
    for (let at = 0; at < row.length; at += 2) {
      const pixel = row[at] | (row[at + 1] << 8);
      data[o++] = Math.trunc((((pixel >> (green === 63 ? 11 : 10)) & 31) * 255) / 31);
      data[o++] = Math.trunc((((pixel >> 5) & green) * 255) / green);
      data[o++] = Math.trunc(((pixel & 31) * 255) / 31);
    }
  }
  return { data, width, height, channels: 3 };
}

function paletted(bytes: Uint8Array, header: Header): Samples {
  const { width, height, bits, compression, topDown } = header;
  if (bits !== 1 && bits !== 4 && bits !== 8) throw new Error(`unsupported BMP of ${bits} bits a pixel`);
  const palette = paletteOf(bytes, header);
  const data = new Uint8Array(width * height * 3);
  const put = (pixel: number, index: number) =>
    data.set(palette.subarray(3 * index, 3 * index + 3), 3 * pixel);
  if (compression === RAW) {
    let pixel = 0;
    for (const row of rows(bytes, header))
      for (let x = 0; x < width; x++)
        put(pixel++, (row[(x * bits) >> 3] >> (8 - bits - ((x * bits) & 7))) & (2 ** bits - 1));
  } else if ((compression === RLE8 && bits === 8) || (compression === RLE4 && bits === 4)) {
    const indices = runs(bytes, header);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) put(y * width + x, indices[(topDown ? y : height - 1 - y) * width + x]);
  } else throw new Error(`unsupported BMP compression ${compression} of ${bits} bits`);
  return { data, width, height, channels: 3 };
}

/** 256 colours; those that the file lacks are black, or grey if all others are the grey of their index, as in PIL. */
function paletteOf(bytes: Uint8Array, { size, end, colours }: Header): Uint8Array {
  if (colours > 65536) throw new Error(`unsupported BMP palette of ${colours} colours`);
  const step = size === 12 ? 3 : 4;
  const palette = new Uint8Array(768);
  const count = Math.min(colours, 256);
  for (let i = 0; i < count && end + step * i + 3 <= bytes.length; i++)
    palette.set(bytes.slice(end + step * i, end + step * i + 3).reverse(), 3 * i);
  const isGrey = palette.subarray(0, 3 * count).every((value, i) => value === Math.floor(i / 3));
  return isGrey ? palette.map((_, i) => Math.floor(i / 3)) : palette;
}

/** Indices of a run-length coded image in the file's order of rows; jumps leave zeros. @throws RangeError if too few */
function runs(bytes: Uint8Array, { width, height, compression, start }: Header): Uint8Array {
  const out = new Uint8Array(width * height);
  const nibbles = compression === RLE4;
  const index = (byte: number, i: number) => (!nibbles ? byte : i % 2 === 0 ? byte >> 4 : byte & 15);
  let [at, done, x] = [start, 0, 0];
  while (done < out.length && at + 2 <= bytes.length) {
    const [count, value] = [bytes[at], bytes[at + 1]];
    at += 2;
    if (count > 0) {
      const kept = Math.min(count, Math.max(0, width - x));
      for (let i = 0; i < kept && done < out.length; i++) out[done++] = index(value, i);
      x += kept;
    } else if (value === 0) {
      done = Math.ceil(done / width) * width;
      x = 0;
    } else if (value === 1) break;
    else if (value === 2) {
      done = Math.min(out.length, done + bytes[at] + bytes[at + 1] * width);
      at += 2;
      x = done % width;
    } else {
      const taken = Math.min(value, out.length - done);
      for (let i = 0; i < taken; i++) out[done++] = index(bytes[at + (nibbles ? i >> 1 : i)], i);
      at += nibbles ? (taken + 1) >> 1 : taken;
      x += value;
      at += at % 2;
    }
  }
  if (done < out.length || at > bytes.length + 1) throw new RangeError('the file is cut off');
  return out;
}
