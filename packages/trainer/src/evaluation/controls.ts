/** What a score must be read beside: guesses without the picture, and classifiers without the model. */
import type { Blip2 } from '@blip2/blip2';
import type { Example, Processor } from '@blip2/data-captions';
import { fold, permutation, rngKey } from '@blip2/nn';
import { encodePng } from '../png';
import type { CaptionOptions } from './captions';
import { generateCaptions, promptOf, readImages, referenceOf } from './captions';
import { pixelRows } from './pixels';
import type { Labelled } from './probe';
import { linearProbe, nearestRows } from './probe';
import type { ResultRow } from './results';
import { resultRow } from './results';
import type { Matrix } from './ridge';
import { chanceScore, majority, scoreCaptions } from './score';

export interface ControlOptions extends CaptionOptions {
  /** the fine-tuned model */
  model: Blip2;
  processor: Processor;
  train: Example[];
  /** the linear probe's strength is chosen on it */
  validation?: Example[];
  test: Example[];
  partsPattern?: string;
  /** what the base said about the test images before training; without it that row is left out */
  baseCaptions?: string[];
  seed: number;
  /** pixel controls use at most this many training images, drawn with `seed` (default 3,000) */
  maxPixelImages?: number;
  onControl?: (name: string) => void;
  /** what the model said under a control, for other figures than those of the table */
  onTexts?: (name: 'blank image' | 'shuffled images', texts: string[]) => void;
}

/** The rows below the fine-tuned model's own, all on the same test examples. */
export async function runControls(o: ControlOptions): Promise<ResultRow[]> {
  const references = o.test.map((example) => referenceOf(example, o.task));
  const score = (captions: string[]) => scoreCaptions(captions, references, o.partsPattern);
  const rows: ResultRow[] = [];
  if (o.baseCaptions) rows.push(resultRow('base, before training', 'base', score(o.baseCaptions)));

  o.onControl?.('blank image');
  const blank = await blankCaptions(o);
  o.onTexts?.('blank image', blank);
  rows.push(resultRow('blank image', 'control', score(blank), 'white picture'));
  o.onControl?.('shuffled images');
  const shuffled = await shuffledCaptions(o);
  o.onTexts?.('shuffled images', shuffled);
  rows.push(resultRow('shuffled images', 'control', score(shuffled), "another row's picture"));
  const training = o.train.map((example) => referenceOf(example, o.task));
  rows.push(resultRow('majority caption', 'control', score(o.test.map(majorityAnswer(o)))));
  rows.push(
    resultRow(
      'chance',
      'control',
      chanceScore(training, references, o.partsPattern),
      'random training caption',
    ),
  );
  rows.push(...(await pixelControls(o, references)));
  return rows;
}

/** The fine-tuned model on a white picture: what it says without looking. */
export async function blankCaptions(
  o: CaptionOptions & Pick<ControlOptions, 'model' | 'processor' | 'test'>,
): Promise<string[]> {
  const prompts = o.test.map((example) => promptOf(example, o));
  const distinct = [...new Set(prompts)];
  const { width, height } = o.processor.imageSize;
  const image = encodePng(new Uint8Array(3 * width * height).fill(255), width, height);
  const rows = distinct.map((prompt) => o.test[prompts.indexOf(prompt)]);
  const embeds = (indices: number[]) =>
    readImages(
      o.processor,
      indices.map(() => ({ image })),
    );
  const said = await generateCaptions(o.model, o.processor, rows, { ...o, embeds, onProgress: undefined });
  return prompts.map((prompt) => said[distinct.indexOf(prompt)]);
}

/** The fine-tuned model on the picture of another example. */
async function shuffledCaptions(o: ControlOptions): Promise<string[]> {
  const other = derangement(o.test.length, o.seed);
  const swapped = o.test.map((example, i) => ({ ...example, image: o.test[other[i]].image }));
  const { embeds } = o;
  return generateCaptions(o.model, o.processor, swapped, {
    ...o,
    embeds: embeds && ((indices) => embeds(indices.map((i) => other[i]))),
    onProgress: undefined,
  });
}

/** A permutation of 0..n-1 in which nothing stays in its place (n ≥ 2): a random single cycle. */
export function derangement(n: number, seed: number): number[] {
  const order = permutation(fold(rngKey(seed), 'shuffled images'), n);
  const out = new Array<number>(n);
  for (let i = 0; i < n; i++) out[order[i]] = order[(i + 1) % n];
  return out;
}

/** The commonest training caption; for questions, the commonest answer to the same question, if there is one. */
function majorityAnswer(o: ControlOptions): (example: Example) => string {
  const overall = majority(o.train.map((example) => referenceOf(example, o.task)));
  const byPrompt = new Map<string, string[]>();
  for (const example of o.train) {
    const prompt = promptOf(example, o);
    if (!byPrompt.has(prompt)) byPrompt.set(prompt, []);
    byPrompt.get(prompt)!.push(referenceOf(example, o.task));
  }
  const answers = new Map([...byPrompt].map(([prompt, texts]) => [prompt, majority(texts)]));
  return (example) => answers.get(promptOf(example, o)) ?? overall;
}

async function pixelControls(o: ControlOptions, references: string[]): Promise<ResultRow[]> {
  o.onControl?.('pixel controls');
  const limit = o.maxPixelImages ?? 3000;
  const seen = draw(o.train, limit, o.seed);
  const labelled = async (examples: Example[]): Promise<Labelled> => ({
    pixels: await pixelRows(
      o.processor,
      examples.map((example) => example.image),
    ),
    captions: examples.map((example) => referenceOf(example, o.task)),
  });
  const train = await labelled(seen);
  const test = await labelled(o.test);
  const suffix = seen.length < o.train.length ? `, ${seen.length} training images` : '';

  const copied = (await nearestFor(o, test.pixels, train.pixels, seen)).map((i) => train.captions[i]);
  const nearest = scoreCaptions(copied, references, o.partsPattern);
  const rows = [resultRow('nearest neighbour', 'control', nearest, `32×32 pixels${suffix}`)];
  if (!o.partsPattern || o.task === 'vqa') return rows;

  const validation = o.validation?.length ? await labelled(o.validation) : undefined;
  const probe = await linearProbe(train, validation, test, o.partsPattern);
  const how = probe.tuned ? 'chosen on validation' : 'not tuned';
  rows.push(resultRow('linear probe', 'control', probe, `32×32 pixels, λ ${probe.strength} ${how}${suffix}`));
  return rows;
}

/** Nearest training image; for questions, among those with the same question, if there are any. */
async function nearestFor(
  o: ControlOptions,
  test: Matrix,
  train: Matrix,
  seen: Example[],
): Promise<number[]> {
  const out = new Array<number>(test.rows);
  const prompts = o.test.map((example) => promptOf(example, o));
  for (const prompt of new Set(prompts)) {
    const same = seen.flatMap((example, i) => (promptOf(example, o) === prompt ? [i] : []));
    const among = same.length ? same : seen.map((_, i) => i);
    const rows = prompts.flatMap((other, i) => (other === prompt ? [i] : []));
    const nearest = await nearestRows(pick(test, rows), pick(train, among));
    rows.forEach((row, i) => (out[row] = among[nearest[i]]));
  }
  return out;
}

function pick({ data, cols }: Matrix, rows: number[]): Matrix {
  const out = new Float32Array(rows.length * cols);
  rows.forEach((row, i) => out.set(data.subarray(row * cols, (row + 1) * cols), i * cols));
  return { data: out, rows: rows.length, cols };
}

function draw<T>(items: T[], limit: number, seed: number): T[] {
  if (items.length <= limit) return items;
  const order = permutation(fold(rngKey(seed), 'pixel controls'), items.length);
  return [...order.subarray(0, limit)].map((i) => items[i]);
}
