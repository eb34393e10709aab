/**
 * Colours of AVIF files with subsampled chroma or a limited range of grey, as libavif, which PIL uses, has them.
 *
 * libheif, which sharp uses, repeats each chroma sample over its 2 × 2 (4:2:0) or 2 × 1 (4:2:2) pixels; libavif
 * interpolates. So luma and chroma are recovered from the repeated colours, and converted again with interpolated chroma.
 * It also takes the limited range of a file without chroma for the full one. It turns, mirrors and crops before it repeats chroma,
 * so in a turned picture of an odd size the samples belong to other pixels: it gets files without these transformations.
 */
import type { Samples } from './samples';

interface Coding {
  monochrome: boolean;
  /** Pixels for each chroma sample. */
  across: 1 | 2;
  down: 1 | 2;
  fullRange: boolean;
  /** Weights of red and blue in luma. */
  kr: number;
  kb: number;
}

/** Kr and Kb by matrix_coefficients of ITU-T H.273; others as BT.601, like libavif. */
const WEIGHTS: Record<number, [kr: number, kb: number]> = { 1: [0.2126, 0.0722], 9: [0.2627, 0.0593] };
const IDENTITY = 0;

/** From the boxes av1C and colr; undefined for RGB and if they are missing. */
function codingOf(bytes: Uint8Array): Coding | undefined {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, HEAD));
  const at = head.indexOf('av1C', 0, 'latin1');
  if (at < 0 || at + 8 > head.length) return undefined;
  const flags = head[at + 6];
  const nclx = head.indexOf('colrnclx', 0, 'latin1');
  const matrix = nclx < 0 ? 6 : head.readUInt16BE(nclx + 12);
  if (matrix === IDENTITY) return undefined;
  const [kr, kb] = WEIGHTS[matrix] ?? [0.299, 0.114];
  const monochrome = (flags & 16) !== 0;
  const across = flags & 8 ? 2 : 1;
  const down = flags & 4 ? 2 : 1;
  return { monochrome, across, down, fullRange: nclx >= 0 && head[nclx + 14] >= 128, kr, kb };
}

/** The boxes before the pixels of a file are shorter. */
const HEAD = 1 << 16;

/**
 * A copy of a file that is not turned (irot), mirrored (imir) or cropped (clap) when it is decoded, or the file itself. PIL's
 * `Image.open` does none of these; the first two are its EXIF orientation. Each box becomes a rotation by 0°.
 */
export function untransformed(bytes: Uint8Array): Uint8Array {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, HEAD));
  const places = ['\0\0\0\x09irot', '\0\0\0\x09imir', '\0\0\0\x28clap'].flatMap((box) => placesOf(head, box));
  if (places.length === 0) return bytes;
  const copy = Buffer.from(bytes);
  for (const at of places) {
    copy.write('irot', at + 4, 'latin1');
    copy[at + 8] = 0;
  }
  return copy;
}

function placesOf(head: Buffer, box: string): number[] {
  const places: number[] = [];
  for (let at = head.indexOf(box, 0, 'latin1'); at >= 0; at = head.indexOf(box, at + 8, 'latin1'))
    places.push(at);
  return places;
}

/** Samples [H, W, 3 or 4] of sharp, in the orientation of the file, with the colours of libavif; changed in place. */
export function avifColours(samples: Samples, bytes: Uint8Array): Samples {
  const coding = codingOf(bytes);
  if (!coding) return samples;
  if (coding.monochrome) return coding.fullRange ? samples : stretchGrey(samples);
  return coding.across === 2 ? interpolateChroma(samples, coding) : samples;
}

/** 16 … 235 to 0 … 255. */
function stretchGrey(samples: Samples): Samples {
  const { data, channels } = samples;
  const levels = Uint8ClampedArray.from({ length: 256 }, (_, v) => Math.round(((v - 16) * 255) / 219));
  const colours = channels < 3 ? 1 : 3;
  for (let i = 0; i < data.length; i += channels)
    for (let c = 0; c < colours; c++) data[i + c] = levels[data[i + c]];
  return samples;
}

function interpolateChroma(samples: Samples, coding: Coding): Samples {
  const { data, width, height, channels } = samples;
  const { across, down, kr, kb } = coding;
  const kg = 1 - kr - kb;
  const [redOfV, blueOfU] = [2 * (1 - kr), 2 * (1 - kb)];
  const [greenOfU, greenOfV] = [(blueOfU * kb) / kg, (redOfV * kr) / kg];
  const { u, v, columns, rows } = chromaOf(samples, coding);
  const out = new Uint8ClampedArray(data.buffer, data.byteOffset, data.length);
  for (let y = 0, i = 0; y < height; y++) {
    const row = y >> (down - 1);
    const nextRow = down === 1 ? row : Math.min(rows - 1, Math.max(0, row + (y % 2 ? 1 : -1)));
    for (let x = 0; x < width; x++, i += channels) {
      const column = x >> (across - 1);
      const nextColumn = Math.min(columns - 1, Math.max(0, column + (x % 2 ? 1 : -1)));
      const [here, beside] = [row * columns + column, row * columns + nextColumn];
      const [below, diagonal] = [nextRow * columns + column, nextRow * columns + nextColumn];
      const luma = lumaOf(
        data,
        i,
        u[here] * blueOfU,
        v[here] * redOfV,
        u[here] * greenOfU + v[here] * greenOfV,
        coding,
      );
      const mixedU = (9 * u[here] + 3 * (u[beside] + u[below]) + u[diagonal]) / 16;
      const mixedV = (9 * v[here] + 3 * (v[beside] + v[below]) + v[diagonal]) / 16;
      out[i] = luma + mixedV * redOfV;
      out[i + 1] = luma - mixedU * greenOfU - mixedV * greenOfV;
      out[i + 2] = luma + mixedU * blueOfU;
    }
  }
  return samples;
}

const isClipped = (value: number) => value === 0 || value === 255;

/** Luma of a pixel from the colours that are not clipped, given what chroma adds to blue and red and takes from green. */
function lumaOf(
  data: Uint8Array,
  i: number,
  blue: number,
  red: number,
  green: number,
  { kr, kb }: Coding,
): number {
  const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
  if (!isClipped(r) && !isClipped(g) && !isClipped(b)) return kr * r + (1 - kr - kb) * g + kb * b;
  if (!isClipped(g)) return g + green;
  if (!isClipped(r)) return r - red;
  if (!isClipped(b)) return b - blue;
  return kr * r + (1 - kr - kb) * g + kb * b;
}

/** One chroma sample for each block, from its pixels without clipped colours if it has any. */
function chromaOf({ data, width, height, channels }: Samples, { across, down, kr, kb }: Coding) {
  const [columns, rows] = [Math.ceil(width / across), Math.ceil(height / down)];
  const u = new Float32Array(columns * rows);
  const v = new Float32Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let [sumU, sumV, weights] = [0, 0, 0];
      for (let y = row * down; y < Math.min(height, (row + 1) * down); y++) {
        for (let x = column * across; x < Math.min(width, (column + 1) * across); x++) {
          const i = (y * width + x) * channels;
          const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
          const weight = isClipped(r) || isClipped(g) || isClipped(b) ? 1e-6 : 1;
          const luma = kr * r + (1 - kr - kb) * g + kb * b;
          sumU += (weight * (b - luma)) / (2 * (1 - kb));
          sumV += (weight * (r - luma)) / (2 * (1 - kr));
          weights += weight;
        }
      }
      u[row * columns + column] = sumU / weights;
      v[row * columns + column] = sumV / weights;
    }
  }
  return { u, v, columns, rows };
}
