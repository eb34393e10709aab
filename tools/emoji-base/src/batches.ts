// Pretraining batches, each computed from its number alone: images, captions, and the targets of the other losses.
// B images, L English lines, U concepts in the batch, C candidate words, M words to find.
import type { TokenBatch } from '@blip2/blip2';
import { fold, permutation, uniform } from '@blip2/nn';
import type { Key } from '@blip2/nn';
import { placeImage, randomPlacement } from './augment';
import { imageBytes, IMAGE_BYTES, itemsOf } from './base-data';
import type { BaseData } from './base-data';
import { IMAGE_SIZE, NUM_QUERIES, SPECIALS, VOCAB_SIZE } from './model-files';
import type { Texts } from './texts';

const [PAD, END, IMAGE] = [1, 2, 4];
/** Share of captions that begin with an article. */
const ARTICLES = 0.25;
/** Number of candidates of the word loss: the words of the batch and random others. */
const CANDIDATES = 256;

/** Targets of the word loss: image `rows[i]` shows the word `candidates[labels[i]]`. */
export interface WordTargets {
  candidates: Int32Array; // [C]
  rows: Int32Array; // [M]
  labels: Int32Array; // [M]
}

/** Targets of the contrastive loss. */
export interface ConceptTargets {
  bags: Int32Array; // [U, T] ids, padded
  weights: Float32Array; // [U, T] 1/length, 0 on pads
  shape: [U: number, T: number];
  /** The concept of each image. */
  ofImage: Int32Array; // [B]
  /** The first image of each concept, and −1e9 at its other images, so that they are not negatives. */
  firstImage: Int32Array; // [U]
  others: Float32Array; // [U, B]
}

/** English lines for the language-model loss, and the start position of each. */
export interface LineBatch extends TokenBatch {
  offsets: Int32Array; // [L]
}

export interface BaseBatch {
  pixels: Float32Array; // [B, 3, 64, 64]
  tokens: TokenBatch; // [image]·32, </s>, caption, </s>
  words: WordTargets;
  concepts: ConceptTargets;
  lines: LineBatch;
}

export interface BatchSizes {
  images: number;
  lines: number;
  /** Number of positions of the language model. */
  maxPositions: number;
}

/** Returns a function from step to batch. It has no state, so a resumed run has the same batches. */
export function makeBatches(
  data: BaseData,
  texts: Texts,
  sizes: BatchSizes,
  key: Key,
): (step: number) => BaseBatch {
  const pool = itemsOf(data, 'base');
  const order = shuffled(pool.length, fold(key, 'images'));
  const lineOrder = shuffled(texts.lineCount, fold(key, 'lines'));
  return (step) => {
    const images = Array.from({ length: sizes.images }, (_, i) => pool[order(step * sizes.images + i)]);
    const lines = Array.from({ length: sizes.lines }, (_, i) => lineOrder(step * sizes.lines + i));
    const here = fold(fold(key, 'step'), step);
    const u = uniform(here, 4 * images.length);
    return {
      pixels: placeImages(data, images, u),
      tokens: captions(texts, images, u),
      words: wordTargets(texts, images, fold(here, 'words')),
      concepts: conceptTargets(data, texts, images),
      lines: lineBatch(texts, lines, sizes.maxPositions, fold(here, 'offsets')),
    };
  };
}

/** Returns the index at a position of an endless sequence of epochs, each with its own order. */
function shuffled(size: number, key: Key): (at: number) => number {
  let epoch = -1;
  let order: Int32Array = new Int32Array(0);
  return (at) => {
    const current = Math.floor(at / size);
    if (current !== epoch) [epoch, order] = [current, permutation(fold(key, current), size)];
    return order[at % size];
  };
}

function placeImages(data: BaseData, images: number[], u: Float32Array): Float32Array {
  const pixels = new Float32Array(images.length * IMAGE_BYTES);
  images.forEach((item, i) =>
    placeImage(imageBytes(data, item), IMAGE_SIZE, randomPlacement(u, 4 * i), pixels, i * IMAGE_BYTES),
  );
  return pixels;
}

function captions(texts: Texts, images: number[], u: Float32Array): TokenBatch {
  const rows = images.map((item, i) => texts.items[item][u[4 * i + 3] < ARTICLES ? 'article' : 'plain']);
  const front = [...Array<number>(NUM_QUERIES).fill(IMAGE), END];
  return padRight(rows.map((ids) => ({ front, target: [...ids, END] })));
}

/** Batch rows padded on the right; only `target` has labels. */
function padRight(rows: { front: number[]; target: number[] }[]): TokenBatch {
  const T = Math.max(...rows.map(({ front, target }) => front.length + target.length));
  const input_ids = new Int32Array(rows.length * T).fill(PAD);
  const attention_mask = new Int32Array(rows.length * T);
  const labels = new Int32Array(rows.length * T).fill(-100);
  rows.forEach(({ front, target }, b) => {
    input_ids.set([...front, ...target], b * T);
    attention_mask.fill(1, b * T, b * T + front.length + target.length);
    labels.set(target, b * T + front.length);
  });
  return { input_ids, attention_mask, labels, shape: [rows.length, T] };
}

function wordTargets(texts: Texts, images: number[], key: Key): WordTargets {
  const wanted = images.map((item) => [...new Set(texts.items[item].plain)]);
  const place = new Map<number, number>();
  for (const id of wanted.flat()) if (!place.has(id)) place.set(id, place.size);
  for (const x of uniform(key, 2 * CANDIDATES)) {
    if (place.size >= CANDIDATES) break;
    const id = SPECIALS.length + Math.floor(x * (VOCAB_SIZE - SPECIALS.length));
    if (!place.has(id)) place.set(id, place.size);
  }
  return {
    candidates: Int32Array.from(place.keys()),
    rows: Int32Array.from(wanted.flatMap((ids, b) => ids.map(() => b))),
    labels: Int32Array.from(wanted.flat(), (id) => place.get(id)!),
  };
}

function conceptTargets(data: BaseData, texts: Texts, images: number[]): ConceptTargets {
  const place = new Map<string, number>();
  const first: number[] = [];
  images.forEach((item, b) => {
    const { hex } = data.items[item];
    if (place.has(hex)) return;
    place.set(hex, first.length);
    first.push(b);
  });
  const ofImage = Int32Array.from(images, (item) => place.get(data.items[item].hex)!);
  const others = new Float32Array(first.length * images.length);
  ofImage.forEach((u, b) => {
    if (first[u] !== b) others[u * images.length + b] = -1e9;
  });
  const rows = first.map((b) => texts.items[images[b]].bag);
  const T = Math.max(...rows.map((ids) => ids.length));
  const bags = new Int32Array(rows.length * T).fill(PAD);
  const weights = new Float32Array(rows.length * T);
  rows.forEach((ids, u) => {
    bags.set(ids, u * T);
    weights.fill(1 / ids.length, u * T, u * T + ids.length);
  });
  return { bags, weights, shape: [rows.length, T], ofImage, firstImage: Int32Array.from(first), others };
}

/**
 * Half of the lines start right after the image, as captions do; the others at random later positions, to train
 * every position.
 */
function lineBatch(texts: Texts, lines: number[], maxPositions: number, key: Key): LineBatch {
  const batch = padRight(
    lines.map((at) => {
      const { ids, whole } = texts.line(at);
      return { front: [END], target: whole ? [...ids, END] : ids };
    }),
  );
  const room = maxPositions - NUM_QUERIES - batch.shape[1];
  const u = uniform(key, lines.length);
  const offsets = Int32Array.from(u, (x) => NUM_QUERIES + Math.round(Math.max(0, 2 * x - 1) * room));
  return { ...batch, offsets };
}
