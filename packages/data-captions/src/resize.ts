/**
 * Antialiased bicubic resizing with PIL's integers: `Image.resize(size, BICUBIC)` of Pillow 13.
 *
 * PIL resizes along rows and along columns, one pass each. A pass stretches the kernel by the reduction factor, converts
 * its weights to fixed point with 22 bits, and rounds and clips to 8 bits. So the order of the passes affects the result.
 * Reference: Pillow, src/libImaging/Resample.c.
 */
import type { RgbImage } from './samples';

const PRECISION_BITS = 22;
const SUPPORT = 2;

/** The weights of one axis. Output i is the sum over t < length[i] of weights[i·taps + t] · input[first[i] + t]. */
interface Axis {
  taps: number;
  first: Int32Array;
  length: Int32Array;
  weights: Int32Array;
}

/** Keys' cubic with a = −0.5. */
function bicubic(x: number): number {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * a;
  return 0;
}

function axis(from: number, to: number): Axis {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = SUPPORT * stretch;
  const taps = Math.ceil(support) * 2 + 1;
  const out: Axis = {
    taps,
    first: new Int32Array(to),
    length: new Int32Array(to),
    weights: new Int32Array(to * taps),
  };
  const exact = new Float64Array(taps);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const length = Math.min(from, Math.trunc(center + support + 0.5)) - first;
    let total = 0;
    for (let t = 0; t < length; t++) {
      exact[t] = bicubic((t + first - center + 0.5) * (1 / stretch));
      total += exact[t];
    }
    for (let t = 0; t < length; t++) {
      const weight = (total === 0 ? exact[t] : exact[t] / total) * 2 ** PRECISION_BITS;
      out.weights[i * taps + t] = Math.trunc(weight + (weight < 0 ? -0.5 : 0.5));
    }
    out.first[i] = first;
    out.length[i] = length;
  }
  return out;
}

/** Stretches an image to width × height, data [H,W,3] → [height,width,3]; an image of that size is returned unchanged. */
export function resizeBicubic(image: RgbImage, width: number, height: number): RgbImage {
  const toWidth = (x: RgbImage) => (x.width === width ? x : resizeRows(x, axis(x.width, width), width));
  const toHeight = (x: RgbImage) =>
    x.height === height ? x : resizeColumns(x, axis(x.height, height), height);
  return columnsFirst(image, width, height) ? toWidth(toHeight(image)) : toHeight(toWidth(image));
}

/**
 * Pillow 13's order of the passes, found by comparing both orders with its output on random sizes. Releases up to 11
 * always resize rows first.
 */
function columnsFirst(image: RgbImage, width: number, height: number): boolean {
  const [lessWidth, lessHeight] = [image.width - width, image.height - height];
  return lessHeight > 0 && lessHeight > 2 * lessWidth;
}

const HALF = 1 << (PRECISION_BITS - 1);

function resizeRows(
  { data, width, height }: RgbImage,
  { taps, first, length, weights }: Axis,
  to: number,
): RgbImage {
  const out = new Uint8ClampedArray(height * to * 3);
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0; x < to; x++, o += 3) {
      let r = HALF;
      let g = HALF;
      let b = HALF;
      const end = x * taps + length[x];
      for (let w = x * taps, i = (y * width + first[x]) * 3; w < end; w++, i += 3) {
        const weight = weights[w];
        r = (r + Math.imul(data[i], weight)) | 0;
        g = (g + Math.imul(data[i + 1], weight)) | 0;
        b = (b + Math.imul(data[i + 2], weight)) | 0;
      }
      out[o] = r >> PRECISION_BITS; // the clamped array clips to 0 … 255
      out[o + 1] = g >> PRECISION_BITS;
      out[o + 2] = b >> PRECISION_BITS;
    }
  }
  return { data: new Uint8Array(out.buffer), width: to, height };
}

function resizeColumns(
  { data, width }: RgbImage,
  { taps, first, length, weights }: Axis,
  to: number,
): RgbImage {
  const row = width * 3;
  const out = new Uint8ClampedArray(to * row);
  const sums = new Int32Array(row);
  for (let y = 0; y < to; y++) {
    sums.fill(HALF);
    for (let t = 0; t < length[y]; t++) {
      const weight = weights[y * taps + t];
      const from = (first[y] + t) * row;
      for (let i = 0; i < row; i++) sums[i] += Math.imul(data[from + i], weight);
    }
    for (let i = 0; i < row; i++) out[y * row + i] = sums[i] >> PRECISION_BITS;
  }
  return { data: new Uint8Array(out.buffer), width, height: to };
}
