/** Controls to compare a score with: guesses without the picture, and classifiers without the model. */
import type { Blip2 } from '@blip2/blip2';
import type { Example, Processor } from '@blip2/data-captions';
import { groupByName, stableOrder } from '@blip2/data-captions';
import { fold, permutation, rngKey } from '@blip2/nn';
import { encodePng } from './png';
import type { CaptionOptions } from './captions';
import { generateCaptions, promptOf, readImages, referenceOf, referencesOf } from './captions';
import type { OtherTexts } from './figures';
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
  generate?: typeof generateCaptions;
  /** training examples for the guesses; without them there are no guesses */
  train?: Example[];
  /** validation examples, which select the linear probe's strength */
  validation?: Example[];
  test: Example[];
  partsPattern?: string;
  seed: number;
  /** pixel controls use at most this many training images, drawn with `seed` (default 3,000) */
  maxPixelImages?: number;
  onControl?: (name: string) => void;
}

/** Texts of the fine-tuned model without the right picture. Shuffling needs two different pictures. */
export async function pictureControls(o: ControlOptions): Promise<Pick<OtherTexts, 'blank' | 'shuffled'>> {
  o.onControl?.('blank image');
  const blank = await blankCaptions(o);
  if (new Set(o.test.map(({ image }) => image)).size < 2) return { blank };
  o.onControl?.('shuffled images');
  return { blank, shuffled: await shuffledCaptions(o) };
}

type Guesser = ControlOptions & { train: Example[] };

/** Guesses that need no model: from the training texts alone, and from raw pixels. */
export async function guessControls(given: Guesser, references: string[][]): Promise<ResultRow[]> {
  const o = { ...given, train: groupByName(given.train, given.task) };
  const training = o.train.flatMap((example) => textsOf(example, o.task));
  const commonest = scoreCaptions(o.test.map(majorityAnswer(o)), references, o.partsPattern);
  const chance = chanceScore(training, references, o.partsPattern);
  const what = o.task === 'vqa' ? 'answer' : 'caption';
  return [
    resultRow(`majority ${what}`, 'control', commonest),
    resultRow('chance', 'control', chance, `random training ${what}`),
    ...(await pixelControls(o, references)),
  ];
}

/** The texts of an example that training learns, each as often as it is written. */
const textsOf = (example: Example, task: ControlOptions['task']) =>
  task === 'vqa' ? [referenceOf(example, task)] : referencesOf(example, task);

/** The fine-tuned model on a blank image, a white picture. */
async function blankCaptions(o: ControlOptions): Promise<string[]> {
  const asked = new Map(o.test.map((example) => [promptOf(example, o), example]));
  const { width, height } = o.processor.imageSize;
  const image = encodePng(new Uint8Array(3 * width * height).fill(255), width, height);
  const embeds = (indices: number[]) =>
    readImages(
      o.processor,
      indices.map(() => ({ image })),
    );
  const options = { ...o, embeds, onProgress: undefined };
  const { generate = generateCaptions } = o;
  const said = await generate(o.model, o.processor, [...asked.values()], options);
  const answers = new Map([...asked.keys()].map((prompt, i) => [prompt, said[i]]));
  return o.test.map((example) => answers.get(promptOf(example, o))!);
}

/** The fine-tuned model on shuffled images: each example gets another picture, whatever the order of rows. */
async function shuffledCaptions(o: ControlOptions): Promise<string[]> {
  const places = new Map(o.test.map(({ image }, i) => [image, i]));
  const distinct = stableOrder([...places.keys()].map((image) => ({ image }))).map(
    (i) => [...places.keys()][i],
  );
  const next = derangement(distinct.length, o.seed);
  const partner = new Map(distinct.map((image, i) => [image, places.get(distinct[next[i]])!]));
  const other = o.test.map(({ image }) => partner.get(image)!);
  const swapped = o.test.map((example, i) => ({ ...example, image: o.test[other[i]].image }));
  const { embeds, generate = generateCaptions } = o;
  return generate(o.model, o.processor, swapped, {
    ...o,
    embeds: embeds && ((indices) => embeds(indices.map((i) => other[i]))),
    onProgress: undefined,
  });
}

/** A permutation of 0..n-1 without fixed points (n ≥ 2): a random single cycle. */
export function derangement(n: number, seed: number): number[] {
  const order = permutation(fold(rngKey(seed), 'shuffled images'), n);
  const out = new Array<number>(n);
  for (let i = 0; i < n; i++) out[order[i]] = order[(i + 1) % n];
  return out;
}

/** The most frequent training caption; for questions, the most frequent answer to the same question, if there is one. */
function majorityAnswer(o: Guesser): (example: Example) => string {
  const overall = majority(o.train.flatMap((example) => textsOf(example, o.task)));
  const byPrompt = new Map<string, string[]>();
  for (const example of o.train) {
    const prompt = promptOf(example, o);
    if (!byPrompt.has(prompt)) byPrompt.set(prompt, []);
    byPrompt.get(prompt)!.push(...textsOf(example, o.task));
  }
  const answers = new Map([...byPrompt].map(([prompt, texts]) => [prompt, majority(texts)]));
  return (example) => answers.get(promptOf(example, o)) ?? overall;
}

async function pixelControls(o: Guesser, references: string[][]): Promise<ResultRow[]> {
  o.onControl?.('pixel controls');
  const limit = o.maxPixelImages ?? 3000;
  const seen = draw(o.train, limit, o.seed);
  const labelled = async (examples: Example[]): Promise<Labelled> => ({
    pixels: await pixelRows(
      o.processor,
      examples.map((example) => example.image),
    ),
    references: examples.map((example) => referencesOf(example, o.task).sort()), // any order of rows
  });
  const train = await labelled(seen);
  const test = await labelled(o.test);
  const suffix = seen.length < o.train.length ? `, ${seen.length} training images` : '';

  const copied = (await nearestFor(o, test.pixels, train.pixels, seen)).map((i) => train.references[i][0]);
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
async function nearestFor(o: Guesser, test: Matrix, train: Matrix, seen: Example[]): Promise<number[]> {
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
