/** Converts images to the model's `pixel_values`. Reference: HF `BlipImageProcessorPil`. */
import type { View } from './augment';
import { crop, flip } from './augment';
import type { DecodeOptions } from './decode-image';
import type { RgbImage } from './samples';
import { DataError, show } from './errors';
import { resizeBicubic } from './resize';

/** Image settings of preprocessor_config.json. */
export interface ImageConfig {
  height: number;
  width: number;
  /** Per channel, the value of each of the 256 levels: (level · rescale_factor − mean) / std, [3][256]. */
  levels: Float32Array[];
  decoding: DecodeOptions;
}

const BICUBIC = 3;
const MEAN = [0.48145466, 0.4578275, 0.40821073];
const STD = [0.26862954, 0.26130258, 0.27577711];

/** Reads the fields of preprocessor_config.json that BLIP-2 uses. @throws DataError that begins with `where` */
export function parseImageConfig(
  json: Record<string, unknown>,
  where: string,
  decoding: DecodeOptions = {},
): ImageConfig {
  const { size, resample = BICUBIC, do_resize = true, do_center_crop = false, do_pad = false } = json;
  if (do_resize !== true || do_center_crop === true || do_pad === true) {
    throw new DataError(
      `${where}: expected do_resize true and neither do_center_crop nor do_pad: BLIP-2 stretches every image to one size`,
    );
  }
  if (resample !== BICUBIC) {
    throw new DataError(
      `${where}: resample: expected 3 (bicubic), the only filter of BLIP-2 checkpoints, found ${show(resample)}`,
    );
  }
  const { height, width } =
    typeof size === 'number' ? { height: size, width: size } : ((size ?? {}) as Record<string, unknown>);
  if (!isSide(height) || !isSide(width)) {
    throw new DataError(
      `${where}: size: expected {"height", "width"} of 1 to ${MOST_SIDE} pixels, found ${show(size)}`,
    );
  }
  const scale = json.do_rescale === false ? 1 : (json.rescale_factor ?? 1 / 255);
  const plain = json.do_normalize === false;
  const mean = plain ? [0, 0, 0] : (json.image_mean ?? MEAN);
  const std = plain ? [1, 1, 1] : (json.image_std ?? STD);
  if (typeof scale !== 'number' || !isTriple(mean) || !isTriple(std) || std.includes(0)) {
    throw new DataError(
      `${where}: expected a number in rescale_factor, and three each in image_mean and image_std (there without 0)`,
    );
  }
  return { height, width, decoding, levels: mean.map((m, c) => levels(scale, m, std[c])) };
}

/** Over ten times BLIP-2's usual size; a batch of larger images would not fit in memory. */
const MOST_SIDE = 4096;
const isSide = (x: unknown): x is number =>
  Number.isSafeInteger(x) && (x as number) > 0 && (x as number) <= MOST_SIDE;
const isTriple = (x: unknown): x is number[] =>
  Array.isArray(x) && x.length === 3 && x.every(Number.isFinite);

/** Normalised values of the 256 levels, rounded to float32 after each step as in the reference. */
function levels(scale: number, mean: number, std: number): Float32Array {
  const { fround } = Math;
  return Float32Array.from({ length: 256 }, (_, v) => fround(fround(v * scale) - fround(mean)) / fround(std));
}

/** Resizes and normalises a decoded image, or a view of it: [3, height, width]. */
export function pixelValues(whole: RgbImage, cfg: ImageConfig, view?: View): Float32Array {
  const part = view ? crop(whole, view.box(whole.width, whole.height)) : whole;
  const resized = resizeBicubic(part, cfg.width, cfg.height); // [H, W, 3]
  return normalise(view?.flip ? flip(resized) : resized, cfg.levels);
}

/** data [H, W, 3] → [3, H, W] */
function normalise({ data, width, height }: RgbImage, [red, green, blue]: Float32Array[]): Float32Array {
  const n = height * width;
  const out = new Float32Array(3 * n);
  for (let i = 0, j = 0; i < n; i++, j += 3) {
    out[i] = red[data[j]];
    out[n + i] = green[data[j + 1]];
    out[2 * n + i] = blue[data[j + 2]];
  }
  return out;
}
