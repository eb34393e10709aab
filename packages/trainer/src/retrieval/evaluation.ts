/** Recall of a run on held-out pictures: how often the right text, or the right picture, is among the nearest. */
import { allCaptions, collate } from '@blip2/data-captions';
import type { Example } from '@blip2/data-captions';
import { dispose, tensor, tidy } from '@blip2/nn';
import type { Tensor2D, Tensor3D } from '@blip2/nn';
import {
  collectionOf,
  embedImages,
  embedTexts,
  imageTokens,
  ranksOf,
  recall,
  similarity,
} from '@blip2/retrieval';
import type { RetrievalScores, TextsOfImages } from '@blip2/retrieval';
import { derangement } from '../evaluation/controls';
import { readImages } from '../evaluation/captions';
import type { FinalEvaluation } from '../evaluation/final';
import { namedReferences } from '../evaluation/final';
import type { ResultRow, ResultsTable } from '../evaluation/results';
import type { WorkHooks } from '../hooks';
import { spread } from '../report/spread';
import type { TrainingSample } from '../run/logs';
import type { Cached } from '../stages';
import type { Retrieval } from './kind';

type Run = Cached<Retrieval>;

const captionsOf = (examples: readonly Example[]) =>
  collectionOf(
    examples.map((example) => allCaptions(example).map((text) => text.trim().replace(/\s+/g, ' '))),
  );

/** Similarities of each example's picture with each text of their collection, row-major. @throws the signal's reason when it is raised */
export async function similaritiesOf(
  run: Run,
  examples: readonly Example[],
  hooks: WorkHooks = {},
  name = 'comparing',
): Promise<Float32Array> {
  const { texts } = captionsOf(examples);
  const words = await textVectors(run, texts, hooks);
  const scores = new Float32Array(examples.length * texts.length);
  try {
    await inBatches(run, examples.length, hooks, name, async (from, to) => {
      const tokens = await tokensOf(run, examples.slice(from, to));
      const found = tidy(() => similarity(embedImages(run.model, tokens), words));
      scores.set((await found.data()) as Float32Array, from * texts.length);
      dispose([tokens, found]);
    });
  } finally {
    dispose(words);
  }
  return scores;
}

/** [R, P] */
async function textVectors(run: Run, texts: readonly string[], hooks: WorkHooks): Promise<Tensor2D> {
  const P = run.model.config.image_text_hidden_size;
  const all = new Float32Array(texts.length * P);
  const limits = { ...run.data.train.texts, truncate: true };
  await inBatches(run, texts.length, hooks, undefined, async (from, to) => {
    const pairs = texts.slice(from, to).map((target) => ({ prompt: '', target, source: target }));
    const found = embedTexts(run.model, collate(pairs, run.processor, limits));
    all.set((await found.data()) as Float32Array, from * P);
    dispose(found);
  });
  return tensor<Tensor2D>(all, [texts.length, P]);
}

async function inBatches(
  { config: { per_device_eval_batch_size: size } }: Run,
  n: number,
  { signal, onPhase }: WorkHooks,
  name: string | undefined,
  work: (from: number, to: number) => Promise<void>,
): Promise<void> {
  for (let from = 0; from < n; from += size) {
    const to = Math.min(n, from + size);
    await work(from, to);
    if (name !== undefined) onPhase?.({ name, done: to, total: n });
    await new Promise((resolve) => setImmediate(resolve)); // lets signals arrive: CPU backends never yield
    signal?.throwIfAborted();
  }
}

/** [B, N, E] */
async function tokensOf({ model, cache, processor }: Run, examples: readonly Example[]): Promise<Tensor3D> {
  const images = examples.map(({ image }) => image);
  if (cache) return tensor<Tensor3D>(await cache.rows(images), [images.length, ...cache.shape]);
  const { pixel_values } = await readImages(processor, [...examples]);
  const tokens = imageTokens(model, pixel_values);
  dispose(pixel_values);
  return tokens;
}

/** LAVIS's names: txt_r1 is the recall of an image's text among all texts, img_r1 that of a text's image. */
const named = ({ image_to_text: txt, text_to_image: img }: RetrievalScores) => ({
  ...{ txt_r1: txt.r1, txt_r5: txt.r5, txt_r10: txt.r10 },
  ...{ img_r1: img.r1, img_r5: img.r5, img_r10: img.r10 },
});

/** With r_mean, the mean of all. */
function scoresOf(found: RetrievalScores): Record<string, number> {
  const all = named(found);
  const values = Object.values(all);
  return { ...all, r_mean: values.reduce((a, b) => a + b, 0) / values.length };
}

const prefixed = (prefix: string, values: Record<string, number>) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [prefix + name, value]));

/** Recall on the validation data now. */
export async function recallScores(run: Run): Promise<Record<string, number>> {
  const { examples } = run.data.validation!;
  const { own } = captionsOf(examples);
  return prefixed('eval_', scoresOf(recall(await similaritiesOf(run, examples), own)));
}

/** Pictures whose texts are compared with those of samples. */
const POOL = 200;

/** For a few pictures, always the same ones, the nearest of the texts of at most 200 pictures of the validation data. */
export async function nearestTexts(run: Run, step: number): Promise<TrainingSample[]> {
  const examples = spread([...(run.data.validation ?? run.data.train).examples], POOL);
  const { texts } = captionsOf(examples);
  const nearest = nearestOf(await similaritiesOf(run, examples), texts);
  const places = new Map(examples.map((example, i) => [example, i]));
  return spread(examples, run.config.num_samples).map((example) => ({
    step,
    image: example.image,
    reference: allCaptions(example)[0],
    text: nearest[places.get(example)!],
  }));
}

/** The nearest text of each picture. */
function nearestOf(scores: Float32Array, texts: readonly string[]): string[] {
  const R = texts.length;
  return Array.from({ length: scores.length / R }, (_, i) => {
    const row = scores.subarray(i * R, (i + 1) * R);
    const best = row.reduce((at, score, text) => (score > row[at] ? text : at), 0);
    return texts[best] ?? '';
  });
}

/** The final table: recall of the model, and beside it before training, with shuffled images, and of a random order. */
export async function finalRecall(run: Run, hooks: WorkHooks): Promise<FinalEvaluation | undefined> {
  if (!run.final) return undefined;
  const { before } = run;
  const { split, dataset } = run.final;
  const { examples } = dataset;
  const { texts, own } = captionsOf(examples);
  const after = await similaritiesOf(run, examples, hooks, `comparing ${split}`);
  const shuffled = examples.length < 2 ? undefined : shuffle(after, examples.length, run.config.seed);
  const table = tableOf({ model: after, before, shuffled }, own, { split, texts: texts.length });
  const pictures = {
    model: foundFirst(after, own),
    ...(before && { before: foundFirst(before, own) }),
    ...(shuffled && { shuffled: foundFirst(shuffled, own) }),
  };
  const nearest = { after: nearestOf(after, texts), before: before && nearestOf(before, texts) };
  const samples = examples.map((example, i) => ({
    image: example.image,
    ...namedReferences(allCaptions(example)),
    ...(nearest.before && { before: nearest.before[i] }),
    after: nearest.after[i],
    score: pictures.model[i],
  }));
  return {
    table,
    evidence: { headline: 'recall', rows: pictures.model, pictures, groups: [], confusions: [] },
    samples,
    row: prefixed(`${split}_`, scoresOf(recall(after, own))),
  };
}

/** Each picture's place in the similarities taken by another one. */
function shuffle(scores: Float32Array, n: number, seed: number): Float32Array {
  const R = scores.length / n;
  const out = new Float32Array(scores.length);
  derangement(n, seed).forEach((other, i) => out.set(scores.subarray(other * R, (other + 1) * R), i * R));
  return out;
}

/** Of each picture, whether its text is the nearest text, and the share of its texts whose nearest picture it is: the mean of both. */
function foundFirst(scores: Float32Array, own: TextsOfImages): number[] {
  const { ofImages, ofTexts } = ranksOf(scores, own);
  return own.map((right, i) => {
    const found = right.filter((text) => ofTexts[text] === 0).length / right.length;
    return (Number(ofImages[i] === 0) + found) / 2;
  });
}

const COLUMNS: Readonly<Record<keyof ReturnType<typeof named>, string>> = {
  txt_r1: 'text R@1',
  txt_r5: 'text R@5',
  txt_r10: 'text R@10',
  img_r1: 'image R@1',
  img_r5: 'image R@5',
  img_r10: 'image R@10',
};

/** The name of the table's first column. */
const SCORE = 'recall at 1';

function tableOf(
  { model, before, shuffled }: { model: Float32Array; before?: Float32Array; shuffled?: Float32Array },
  own: TextsOfImages,
  { split, texts }: { split: string; texts: number },
): ResultsTable {
  const { chance } = recall(model, own);
  const row = (name: string, kind: ResultRow['kind'], found: RetrievalScores, note?: string): ResultRow => {
    const values = named(found);
    const keys = Object.keys(COLUMNS) as (keyof typeof values)[];
    const parts = Object.fromEntries(keys.map((key) => [COLUMNS[key], values[key]]));
    const exact = (found.image_to_text.r1 + found.text_to_image.r1) / 2;
    return { name, kind, exact, parts, ...(note !== undefined && { note }) };
  };
  const rows = [
    row('fine-tuned', 'model', recall(model, own)),
    ...(before ? [row('base, before training', 'base', recall(before, own))] : []),
    ...(shuffled ? [row('shuffled images', 'control', recall(shuffled, own))] : []),
    row('chance', 'control', { ...chance, chance }, 'a random order'),
  ];
  const n = own.length;
  return { rows, score: SCORE, parts: Object.values(COLUMNS), n, pictures: n, texts, split };
}
