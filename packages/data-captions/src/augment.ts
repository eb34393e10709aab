/**
 * Random crops and flips of training images, as in torchvision's RandomResizedCrop and RandomHorizontalFlip with the
 * values of LAVIS's `blip2_image_train`. They depend only on (seed, epoch, example), so they are the same on every
 * machine, with any number of threads, and after a restart.
 */
import type { RgbImage } from './samples';
import type { Example } from './example';
import { allAnswers, allCaptions } from './example';
import { randomWord } from './random';

/** `crop`: a random part, stretched to the model's size; `crop+flip`: also mirrors half of them, as LAVIS does. */
export const AUGMENTATIONS = ['crop', 'crop+flip'] as const;
export type Augmentation = (typeof AUGMENTATIONS)[number];

/** A part of an image, in pixels. */
export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** A crop and flip of an image; the crop is a function because the size is unknown until decoding. */
export interface View {
  box(width: number, height: number): Box;
  /** Whether to mirror left and right. */
  flip: boolean;
}

/** Ranges of a crop's share of the area and of its aspect ratio. */
const AREA = [0.5, 1] as const;
const RATIO = [3 / 4, 4 / 3] as const;
const TRIES = 10;

/** First random stream of views; epochs' orders use 1, 2, …, those of pictures 2^30, 2^30 + 1, …, choices of texts 2^32 − 2, 2^32 − 3, … */
const STREAMS = 0x80000000;
/** Random numbers reserved for one view. */
const NUMBERS = 32;

/** The view of example number `index` in an epoch; not mirrored if a text mentions left or right. */
export function viewOf(
  kind: Augmentation,
  example: Example,
  { seed, epoch, index }: { seed: number; epoch: number; index: number },
): View {
  const random = (i: number) => randomWord(seed, STREAMS + epoch, NUMBERS * index + i) / 2 ** 32;
  return {
    box: (width, height) => cropBox(width, height, random),
    flip: kind === 'crop+flip' && random(NUMBERS - 1) < 0.5 && !mentionsSides(example),
  };
}

/** Whether a text of an example mentions left, right or clockwise. */
export function mentionsSides(example: Example): boolean {
  const texts = [...allCaptions(example), ...allAnswers(example), example.question ?? ''];
  return texts.some((text) => SIDES.test(text));
}

const SIDES = /\b(left|right|(counter|anti)?-?clockwise)/i;

/** A random crop; `random(i)` is random number i in 0 … 1. Reference: torchvision `RandomResizedCrop.get_params`. */
export function cropBox(width: number, height: number, random: (i: number) => number): Box {
  const between = ([low, high]: readonly [number, number], i: number) => low + random(i) * (high - low);
  const logRatio = [Math.log(RATIO[0]), Math.log(RATIO[1])] as const;
  for (let i = 0; i < 2 * TRIES; i += 2) {
    const area = width * height * between(AREA, i);
    const ratio = Math.exp(between(logRatio, i + 1));
    const w = Math.round(Math.sqrt(area * ratio));
    const h = Math.round(Math.sqrt(area / ratio));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    const left = Math.floor(random(2 * TRIES) * (width - w + 1));
    const top = Math.floor(random(2 * TRIES + 1) * (height - h + 1));
    return { left, top, width: w, height: h };
  }
  return centralBox(width, height);
}

/** The largest central box within the ratios, for images too long for a random one. */
function centralBox(width: number, height: number): Box {
  const w = Math.min(width, Math.round(height * RATIO[1]));
  const h = Math.min(height, Math.round(width / RATIO[0]));
  return { left: Math.floor((width - w) / 2), top: Math.floor((height - h) / 2), width: w, height: h };
}

/** Copies a part of an image. */
export function crop({ data, width }: RgbImage, box: Box): RgbImage {
  const row = 3 * box.width;
  const out = new Uint8Array(row * box.height);
  for (let y = 0; y < box.height; y++) {
    const from = 3 * ((box.top + y) * width + box.left);
    out.set(data.subarray(from, from + row), y * row);
  }
  return { data: out, width: box.width, height: box.height };
}

/** Mirrors an image left to right. */
export function flip({ data, width, height }: RgbImage): RgbImage {
  const out = new Uint8Array(data.length);
  for (let i = 0, pixels = width * height; i < pixels; i++) {
    const x = i % width;
    const to = 3 * (i - x + (width - 1 - x));
    for (let c = 0; c < 3; c++) out[to + c] = data[3 * i + c];
  }
  return { data: out, width, height };
}
