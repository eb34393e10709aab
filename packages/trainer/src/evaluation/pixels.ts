/** Images as short rows of raw pixels, for the controls that use pixels only. */
import type { Processor } from '@blip2/data-captions';
import type { Matrix } from './ridge';

/** Side of the small picture. */
const SIDE = 32;

/** Each image area-averaged to 32×32 RGB, one row of 3·32·32 per file, in the processor's normalised units. */
export async function pixelRows(processor: Processor, files: string[]): Promise<Matrix> {
  const cols = 3 * SIDE * SIDE;
  const data = new Float32Array(files.length * cols);
  const { height, width } = processor.imageSize;
  const AT_ONCE = 16;
  for (let from = 0; from < files.length; from += AT_ONCE) {
    const batch = files.slice(from, from + AT_ONCE);
    const pixels = await Promise.all(batch.map((file) => processor.pixels(file)));
    pixels.forEach((image, i) => data.set(shrink(image, height, width), (from + i) * cols));
  }
  return { data, rows: files.length, cols };
}

/** [3, height, width] to [3, 32, 32]: each cell is the mean of the pixels it touches. */
export function shrink(image: Float32Array, height: number, width: number): Float32Array {
  const out = new Float32Array(3 * SIDE * SIDE);
  for (let cell = 0; cell < out.length; cell++) {
    const [channel, y, x] = [Math.floor(cell / (SIDE * SIDE)), Math.floor(cell / SIDE) % SIDE, cell % SIDE];
    const [top, bottom] = span(y, height);
    const [left, right] = span(x, width);
    let sum = 0;
    for (let row = top; row < bottom; row++)
      for (let col = left; col < right; col++) sum += image[(channel * height + row) * width + col];
    out[cell] = sum / ((bottom - top) * (right - left));
  }
  return out;
}

function span(cell: number, length: number): [from: number, to: number] {
  const from = Math.floor((cell * length) / SIDE);
  return [from, Math.max(from + 1, Math.ceil(((cell + 1) * length) / SIDE))];
}
