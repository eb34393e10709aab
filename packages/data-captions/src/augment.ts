/**
 * What training sees of an image at one visit: a random crop, and perhaps its mirror image. Boxes are drawn as torchvision's
 * RandomResizedCrop and RandomHorizontalFlip do; the values are those of LAVIS's `blip2_image_train`. A draw depends only on
 * (seed, epoch, example), so it is the same on every machine, with any number of threads, and after a restart.
 */
import type { RgbImage } from './decode-image';
import type { Example } from './example';
import { randomWord } from './random';

/** `crop`: a random part, stretched to the model's size; `crop+flip`: half of them mirrored too, as LAVIS does. */
export const AUGMENTATIONS = ['crop', 'crop+flip'] as const;
export type Augmentation = (typeof AUGMENTATIONS)[number];

/** A part of an image, in pixels. */
export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** What is shown of an image of a size that is known only when it is decoded. */
export interface View {
  box(width: number, height: number): Box;
  /** Mirrored from left to right. */
  flip: boolean;
}

/** Share of the area that a crop has, and how far its sides may be from those of a square. */
const AREA = [0.5, 1] as const;
const RATIO = [3 / 4, 4 / 3] as const;
const TRIES = 10;

/** Streams of random numbers between those of epochs (from 0 up) and those of texts (from 2^32 down). */
const STREAMS = 0x80000000;
/** More numbers than one view takes. */
const NUMBERS = 32;

/** The view of example number `index` in an epoch. Where a text tells left from right, the image is not mirrored. */
export function viewOf(
  kind: Augmentation,
  example: Example,
  { seed, epoch, index }: { seed: number; epoch: number; index: number },
): View {
  const random = (i: number) => randomWord(seed, STREAMS + epoch, NUMBERS * index + i) / 2 ** 32;
  return {
    box: (width, height) => cropBox(width, height, random),
    flip: kind === 'crop+flip' && random(NUMBERS - 1) < 0.5 && !tellsSides(example),
  };
}

/** Do the words of an example depend on which side is which? */
export function tellsSides({ caption, captions, question, answer, answers }: Example): boolean {
  const texts = [caption, question, answer, ...(captions ?? []), ...(answers ?? [])];
  return texts.some((text) => text !== undefined && SIDES.test(text));
}

const SIDES = /\b(left|right|(counter|anti)?-?clockwise)/i;

/** Reference: torchvision `RandomResizedCrop.get_params`. `random(i)` is a number in 0 … 1, the same for the same i. */
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

/** For images too long for any of the crops: as much of the middle as the ratios allow. */
function centralBox(width: number, height: number): Box {
  const w = Math.min(width, Math.round(height * RATIO[1]));
  const h = Math.min(height, Math.round(width / RATIO[0]));
  return { left: Math.floor((width - w) / 2), top: Math.floor((height - h) / 2), width: w, height: h };
}

/** A part of an image as an image of its own. */
export function crop({ data, width }: RgbImage, box: Box): RgbImage {
  const row = 3 * box.width;
  const out = new Uint8Array(row * box.height);
  for (let y = 0; y < box.height; y++) {
    const from = 3 * ((box.top + y) * width + box.left);
    out.set(data.subarray(from, from + row), y * row);
  }
  return { data: out, width: box.width, height: box.height };
}

/** The mirror image. */
export function flip({ data, width, height }: RgbImage): RgbImage {
  const out = new Uint8Array(data.length);
  for (let i = 0, pixels = width * height; i < pixels; i++) {
    const x = i % width;
    const to = 3 * (i - x + (width - 1 - x));
    for (let c = 0; c < 3; c++) out[to + c] = data[3 * i + c];
  }
  return { data: out, width, height };
}
