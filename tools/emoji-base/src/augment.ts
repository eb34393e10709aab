// Converts bytes to the model's float32 pixels: a random shift and zoom on white, and CLIP's normalisation.
import { PIXEL_MEAN, PIXEL_STD } from './model-files';

/** An image shifted by (dx, dy) pixels and magnified by `zoom` about its centre. */
export interface Placement {
  dx: number;
  dy: number;
  zoom: number;
}

export const UNMOVED: Placement = { dx: 0, dy: 0, zoom: 1 };

/**
 * Shift by up to ±4 px and zoom by up to ±12 %, from three uniform numbers in [0, 1). No flip, because arrows and
 * clocks are not symmetric.
 */
export function randomPlacement(u: ArrayLike<number>, at: number): Placement {
  const signed = (i: number) => 2 * u[at + i] - 1;
  return { dx: 4 * signed(0), dy: 4 * signed(1), zoom: 1 + 0.12 * signed(2) };
}

/**
 * Bilinear taps along one axis: the left source pixel (−1 … size − 1) of each target pixel, and the weight of the
 * right one.
 */
function taps(size: number, shift: number, zoom: number): { left: Int32Array; weight: Float32Array } {
  const left = new Int32Array(size);
  const weight = new Float32Array(size);
  const centre = (size - 1) / 2;
  for (let i = 0; i < size; i++) {
    const from = Math.min(size, Math.max(-1, (i - centre - shift) / zoom + centre)); // pixels outside are white
    left[i] = Math.floor(from);
    weight[i] = from - left[i];
  }
  return { left, weight };
}

/**
 * Samples one image of RGB bytes [S, S, 3] into normalised floats [3, S, S] at `out[offset …]`; pixels outside the
 * image are white.
 */
export function placeImage(
  bytes: Uint8Array,
  size: number,
  placement: Placement,
  out: Float32Array,
  offset: number,
): void {
  const padded = padWhite(bytes, size);
  const row = (size + 3) * 3;
  const x = taps(size, placement.dx, placement.zoom);
  const y = taps(size, placement.dy, placement.zoom);
  for (let channel = 0; channel < 3; channel++) {
    const gain = 1 / (255 * PIXEL_STD[channel]);
    const bias = -PIXEL_MEAN[channel] / PIXEL_STD[channel];
    let to = offset + channel * size * size;
    for (let i = 0; i < size; i++) {
      const top = (y.left[i] + 1) * row + channel;
      const down = y.weight[i];
      for (let j = 0; j < size; j++) {
        const at = top + (x.left[j] + 1) * 3;
        const right = x.weight[j];
        const above = padded[at] + right * (padded[at + 3] - padded[at]);
        const below = padded[at + row] + right * (padded[at + row + 3] - padded[at + row]);
        out[to++] = (above + down * (below - above)) * gain + bias;
      }
    }
  }
}

let frame = new Uint8Array(0);

/** The image with one white pixel before and two after it on both axes, so that every tap exists: [S + 3, S + 3, 3]. */
function padWhite(bytes: Uint8Array, size: number): Uint8Array {
  const side = (size + 3) * 3;
  if (frame.length !== side * (size + 3)) frame = new Uint8Array(side * (size + 3)).fill(255);
  for (let i = 0; i < size; i++)
    frame.set(bytes.subarray(i * size * 3, (i + 1) * size * 3), (i + 1) * side + 3);
  return frame;
}
