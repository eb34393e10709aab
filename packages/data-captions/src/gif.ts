/**
 * Decodes the first frame of a GIF on its canvas, to the integers of Pillow 13 (`GifImagePlugin.py`, `GifDecode.c`).
 * sharp's loader guesses another canvas for some sizes and has no colour for transparent pixels.
 */
import type { Samples } from './samples';

interface Frame {
  /** Canvas, enlarged where the frame is outside. */
  width: number;
  height: number;
  left: number;
  top: number;
  frameWidth: number;
  frameHeight: number;
  interlaced: boolean;
  /** RGB of 256 indices. */
  palette: Uint8Array;
  transparent?: number;
  /** Where the codes begin. */
  start: number;
}

/** The first frame's header. @throws RangeError if the file is cut off; Error if it has no frame */
export function gifHeader(bytes: Uint8Array): Frame {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at: number) => view.getUint16(at, true);
  const flags = view.getUint8(10);
  let palette = greys();
  let at = 13;
  if (flags & 128) [palette, at] = readPalette(bytes, at, flags);
  let transparent: number | undefined;
  for (;;) {
    const kind = view.getUint8(at++);
    if (kind === 0x3b) throw new Error('the GIF has no frame');
    if (kind === 0x21) {
      if (view.getUint8(at) === 0xf9 && view.getUint8(at + 1) >= 4 && view.getUint8(at + 2) & 1)
        transparent = view.getUint8(at + 5);
      for (at++; view.getUint8(at) > 0;) at += 1 + view.getUint8(at);
      at++;
    } else if (kind === 0x2c) break;
  }
  const [left, top, frameWidth, frameHeight] = [0, 2, 4, 6].map((i) => word(at + i));
  const local = view.getUint8(at + 8);
  at += 9;
  if (local & 128) [palette, at] = readPalette(bytes, at, local);
  const [width, height] = [Math.max(word(6), left + frameWidth), Math.max(word(8), top + frameHeight)];
  const interlaced = (local & 64) !== 0;
  return { width, height, left, top, frameWidth, frameHeight, interlaced, palette, transparent, start: at };
}

/** @throws RangeError if the file is cut off; Error if its codes are damaged */
export function decodeGif(bytes: Uint8Array, dropAlpha: boolean): Samples {
  const frame = gifHeader(bytes);
  const { width, height, left, top, frameWidth, frameHeight, palette, transparent } = frame;
  const indices = unpack(bytes, frame);
  const channels = transparent === undefined || dropAlpha ? 3 : 4;
  const data = new Uint8Array(width * height * channels);
  const colour = (index: number) => [
    ...palette.subarray(3 * index, 3 * index + 3),
    index === transparent ? 0 : 255,
  ];
  const colours = Array.from({ length: 256 }, (_, index) => colour(index));
  const empty = colours[transparent ?? 0];
  for (let y = 0, o = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const inside = x >= left && x < left + frameWidth && y >= top && y < top + frameHeight;
      const values = inside ? colours[indices[(y - top) * frameWidth + x - left]] : empty;
      for (let c = 0; c < channels; c++) data[o++] = values[c];
    }
  return { data, width, height, channels };
}

/** Without a palette, and with one of these levels, indices are grey; with another palette they are black beyond it. */
const greys = () => Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));

function readPalette(bytes: Uint8Array, at: number, flags: number): [Uint8Array<ArrayBuffer>, number] {
  const end = at + (3 << ((flags & 7) + 1));
  const colours = bytes.subarray(at, end);
  const levels = greys();
  if (colours.every((value, i) => value === levels[i])) return [levels, end];
  const palette = new Uint8Array(768);
  palette.set(colours);
  return [palette, end];
}

/** The rows of a frame in the order in which the file has them. */
function* rowOrder({ frameHeight, interlaced }: Frame): Generator<number> {
  const passes = interlaced
    ? [
        [0, 8],
        [4, 8],
        [2, 4],
        [1, 2],
      ]
    : [[0, 1]];
  for (const [first, step] of passes) for (let y = first; y < frameHeight; y += step) yield y;
}

const MOST_BITS = 12;

/** The frame's indices, uncompressed (LZW). */
function unpack(bytes: Uint8Array, frame: Frame): Uint8Array {
  const { frameWidth, frameHeight, start } = frame;
  const out = new Uint8Array(frameWidth * frameHeight);
  const order = rowOrder(frame);
  let [x, row, done] = [0, (order.next().value ?? 0) * frameWidth, 0];
  const put = (index: number) => {
    if (done === out.length) return;
    out[row + x++] = index;
    done++;
    if (x < frameWidth) return;
    x = 0;
    row = (order.next().value ?? 0) * frameWidth;
  };
  const bits = bytes[start];
  if (!(bits <= MOST_BITS)) throw new Error('damaged GIF codes');
  const clear = 1 << bits;
  const before = new Int16Array(1 << MOST_BITS);
  const last = new Uint8Array(1 << MOST_BITS);
  const text = new Uint8Array((1 << MOST_BITS) + 1);
  let [next, size, previous] = [clear + 2, bits + 1, -1];
  const read = codes(bytes, start + 1);
  while (done < out.length) {
    const code = read(size);
    if (code === clear) {
      [next, size, previous] = [clear + 2, bits + 1, -1];
      continue;
    }
    if (code === clear + 1) throw new RangeError('the frame ends too early');
    if (code > (previous < 0 ? clear : next)) throw new Error('damaged GIF codes');
    let n = 0;
    let c = code;
    if (code === next && previous >= 0) [n, c] = [1, previous]; // its first index again at the end, filled in below
    for (; c >= clear; c = before[c]) text[n++] = last[c];
    text[n++] = c;
    if (code === next && previous >= 0) text[0] = c;
    if (previous >= 0 && next < 1 << MOST_BITS) {
      last[next] = c;
      before[next] = previous;
      if (next === 2 ** size - 1 && size < MOST_BITS) size++;
      next++;
    }
    previous = code;
    while (n > 0) put(text[--n]);
  }
  return out;
}

/** Reads codes of some bits from sub-blocks. */
function codes(bytes: Uint8Array, start: number): (size: number) => number {
  let [at, left, buffer, count] = [start, 0, 0, 0];
  return (size) => {
    while (count < size) {
      while (left === 0) {
        if (at >= bytes.length) throw new RangeError('the file is cut off');
        left = bytes[at++];
      }
      if (at >= bytes.length) throw new RangeError('the file is cut off');
      buffer |= bytes[at++] << count;
      count += 8;
      left--;
    }
    const code = buffer & ((1 << size) - 1);
    buffer >>>= size;
    count -= size;
    return code;
  };
}
