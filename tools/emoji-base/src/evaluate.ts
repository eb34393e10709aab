// Compares greedy captions of images with their Unicode labels; a leading article is ignored.
import { generate, imagePrompt } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { parsePerson } from '@blip2/emoji-captions';
import type { Person } from '@blip2/emoji-captions';
import { tensor } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { placeImage, UNMOVED } from './augment';
import { imageBytes, IMAGE_BYTES } from './base-data';
import type { BaseData } from './base-data';
import { IMAGE_SIZE } from './model-files';

/** Shares of images; the parts are counted over images that show one woman or man. */
export interface Score {
  count: number;
  exact: number;
  subject?: number;
  activity?: number;
  tone?: number;
  samples: { label: string; said: string }[];
}

/** Validation triples of the grid; held-out objects in one style; a fixed sample of the training images. */
export type Scores = Partial<Record<'validation' | 'heldOut' | 'trained' | 'test', Score>>;

const BATCH = 84;
const MAX_TOKENS = 24;

/** Captions items, without shift and zoom. */
export async function captionItems(
  model: Blip2,
  data: BaseData,
  items: number[],
  decode: (ids: number[]) => string,
): Promise<string[]> {
  const said: string[] = [];
  for (let start = 0; start < items.length; start += BATCH) {
    const some = items.slice(start, start + BATCH);
    const pixels = new Float32Array(some.length * IMAGE_BYTES);
    some.forEach((item, i) =>
      placeImage(imageBytes(data, item), IMAGE_SIZE, UNMOVED, pixels, i * IMAGE_BYTES),
    );
    const pixel_values = tensor<Tensor4D>(pixels, [some.length, 3, IMAGE_SIZE, IMAGE_SIZE]);
    const prompt = imagePrompt(model.config, some.length);
    const ids = await generate(model, { pixel_values }, prompt, { max_new_tokens: MAX_TOKENS });
    pixel_values.dispose();
    said.push(...ids.map((row) => decode(row).trim()));
  }
  return said;
}

/** Compares captions with labels. */
export function score(labels: string[], said: string[]): Score {
  const plain = said.map((text) => text.replace(/^(a|an) /, ''));
  const share = (hits: boolean[]) =>
    hits.length === 0 ? undefined : hits.filter(Boolean).length / hits.length;
  const people = labels.flatMap((label, i) => {
    const person = parsePerson(label);
    return person ? [{ person, answer: parsePerson(plain[i]) }] : [];
  });
  const part = (field: keyof Person) =>
    share(people.map(({ person, answer }) => answer?.[field] === person[field]));
  const every = Math.max(1, Math.floor(labels.length / 6));
  return {
    count: labels.length,
    exact: share(labels.map((label, i) => plain[i] === label)) ?? 0,
    subject: part('subject'),
    activity: part('activity'),
    tone: part('tone'),
    samples: labels.map((label, i) => ({ label, said: said[i] })).filter((_, i) => i % every === 0),
  };
}

/** Captions and compares. */
export async function evaluate(
  model: Blip2,
  data: BaseData,
  items: number[],
  decode: (ids: number[]) => string,
): Promise<Score> {
  const said = await captionItems(model, data, items, decode);
  return score(
    items.map((item) => data.items[item].label),
    said,
  );
}
