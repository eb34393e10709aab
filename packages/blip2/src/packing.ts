/**
 * A batch of token rows as packed rows: rows of one picture share its positions, and there are no pads. Exact, because attention is
 * causal: what is computed at the image's positions, which come first, depends on the picture alone. Nothing here computes on a backend.
 * B rows, T tokens of a row, Q image tokens, P pictures, N packed positions, M labelled tokens.
 */
import type { LabelledRows, PackedBatch, Packing } from '@blip2/nn';
import { ModelError } from './config';
import type { Blip2Config } from './config';
import { languageModel } from './language-model';
import { checkImages, checkLabels, layout } from './tokens';
import type { ImageRows, Layout, TokenBatch } from './tokens';

/** The source of each packed position [N], and the batch for the text model. */
export interface PackedLayout extends Layout {
  batch: PackedBatch | LabelledRows;
}

/**
 * Packs a labelled batch with `images` pictures. If a row does not begin with its image, nothing is shared, and each row is packed whole.
 * A `seq2seq` model's encoder computes at the image's positions what depends on the prompt too: its rows stay whole, and equal ones are one.
 * @throws ModelError if images and image tokens do not fit, nothing is labelled, or padding would predict a labelled token
 */
export function pack(cfg: Blip2Config, tokens: TokenBatch, images: number | undefined): PackedLayout {
  const { rows } = languageModel(cfg);
  checkLabels(tokens, rows);
  if (rows === 'causal') return packTexts(cfg, tokens, images);
  const { own, prompts } = distinctRows(tokens, checkImages(cfg, tokens, images).pictures);
  const { attention_mask, shape } = own;
  return { ...layout(cfg, own, images), batch: { attention_mask, shape, labels: tokens.labels!, prompts } };
}

/** The rows of a batch without those that repeat picture, tokens and mask of another, and the row that each was. */
function distinctRows(tokens: TokenBatch, pictures: Int32Array): { own: TokenBatch; prompts: Int32Array } {
  const [B, T] = tokens.shape;
  const of = (values: Int32Array, b: number) => values.subarray(b * T, (b + 1) * T);
  const keys = Array.from({ length: B }, (_, b) =>
    [pictures[b], of(tokens.input_ids, b), of(tokens.attention_mask, b)].join(';'),
  );
  const kept = [...new Set(keys)].map((key) => keys.indexOf(key));
  const prompts = Int32Array.from(keys, (key) => kept.findIndex((b) => keys[b] === key));
  const picked = (values: Int32Array) => Int32Array.from(kept.flatMap((b) => [...of(values, b)]));
  const own: TokenBatch = {
    shape: [kept.length, T],
    input_ids: picked(tokens.input_ids),
    attention_mask: picked(tokens.attention_mask),
    pictures: Int32Array.from(kept, (b) => pictures[b]),
  };
  return { own, prompts };
}

function packTexts(cfg: Blip2Config, tokens: TokenBatch, images: number | undefined) {
  const rows = checkImages(cfg, tokens, images);
  const columns = visibleColumns(tokens);
  const shares = images !== undefined && columns.every((row) => beginsWithImage(tokens, rows, row));
  const [P, Q] = shares && columns.some((row) => row.length > rows.Q) ? [images, rows.Q] : [0, 0];
  const texts = columns.map((row) => row.slice(Q));
  const starts = new Int32Array(texts.length + 1).fill(P * Q);
  texts.forEach((text, b) => (starts[b + 1] = starts[b] + text.length));
  const packing = { prefixes: P, prefixLength: Q, pictures: rows.pictures, starts };
  const batch: PackedBatch = { packing, ...predictions(tokens, placesOf(tokens, columns, packing)) };
  return { ...sourcesOf(tokens, rows, texts, packing), batch };
}

/** Number of different pictures of a batch. */
export function picturesOf({ pictures, shape: [B] }: Pick<TokenBatch, 'pictures' | 'shape'>): number {
  return pictures ? pictures.reduce((most, p) => Math.max(most, p + 1), 0) : B;
}

/** Packed positions `from` … `from + rows`. What causal layers compute there depends on a picture and these tokens after it alone. */
export interface Segment {
  picture: number;
  /** empty: the positions of the picture itself */
  ids: Int32Array;
  from: number;
  rows: number;
}

/** The parts of a packed batch, in the order of its positions: its pictures, then its texts. @throws ModelError as `pack` */
export function segmentsOf(cfg: Blip2Config, tokens: TokenBatch): Segment[] {
  const { packing } = packTexts(cfg, tokens, picturesOf(tokens)).batch;
  const { prefixes: P, prefixLength: Q, pictures, starts } = packing;
  const shared = Array.from({ length: P }, (_, picture) => ({
    picture,
    ids: new Int32Array(0),
    from: picture * Q,
    rows: Q,
  }));
  const texts = visibleColumns(tokens).map((columns, b) => ({
    picture: pictures[b],
    ids: Int32Array.from(columns.slice(Q), (i) => tokens.input_ids[i]),
    from: starts[b],
    rows: starts[b + 1] - starts[b],
  }));
  return [...shared, ...texts];
}

/** The flattened positions [B·T] of each row that are no padding. */
function visibleColumns({ attention_mask, shape: [B, T] }: TokenBatch): number[][] {
  const odd = attention_mask.find((m) => m !== 0 && m !== 1);
  if (odd !== undefined) throw new ModelError(`attention_mask: expected 0 and 1, found ${odd}`);
  const columns = Array.from({ length: B }, (): number[] => []);
  attention_mask.forEach((m, i) => m === 1 && columns[Math.floor(i / T)].push(i));
  return columns;
}

function beginsWithImage({ input_ids }: TokenBatch, { image, Q }: ImageRows, row: number[]): boolean {
  return row.length >= Q && row.slice(0, Q).every((i) => input_ids[i] === image);
}

/** The packed position of each of the [B·T] positions; −1 for padding. */
function placesOf({ shape: [B, T] }: TokenBatch, columns: number[][], p: Packing): Int32Array {
  const { prefixLength: Q, pictures, starts } = p;
  const places = new Int32Array(B * T).fill(-1);
  columns.forEach((row, b) =>
    row.forEach((i, n) => (places[i] = n < Q ? pictures[b] * Q + n : starts[b] + n - Q)),
  );
  return places;
}

/** The embeddings of the packed positions: the prefixes, then the texts. */
function sourcesOf(
  { input_ids }: TokenBatch,
  { image, Q, pictures }: ImageRows,
  texts: number[][],
  p: Packing,
): Layout {
  const text = Int32Array.from(
    texts.flat().filter((i) => input_ids[i] !== image),
    (i) => input_ids[i],
  );
  let next = 0;
  const own = texts.flatMap((row, b) => {
    let seen = 0;
    return row.map((i) => (input_ids[i] === image ? text.length + pictures[b] * Q + seen++ : next++));
  });
  const shared = Array.from({ length: p.prefixes * p.prefixLength }, (_, i) => text.length + i);
  return { text, source: Int32Array.from([...shared, ...own]) };
}

/** The labelled tokens [M] and the packed positions that predict them: position t predicts label t + 1. */
function predictions(
  { labels, shape: [B, T] }: TokenBatch,
  places: Int32Array,
): Omit<PackedBatch, 'packing'> {
  const at: number[] = [];
  for (let i = 0; i < B * T; i++) if (i % T < T - 1 && labels![i + 1] >= 0) at.push(i);
  const pad = at.find((i) => places[i] < 0);
  if (pad !== undefined)
    throw new ModelError(
      `labels: expected −100 where the position before is padding (attention_mask 0), ` +
        `found ${labels![pad + 1]} in row ${Math.floor(pad / T)}, column ${(pad % T) + 1}`,
    );
  return {
    labels: Int32Array.from(at, (i) => labels![i + 1]),
    predictors: Int32Array.from(at, (i) => places[i]),
  };
}
