/** What quantising does to a model on the user's rows: errors of layers, the loss, and the tokens that it would choose. */
import { forward, loss, stagesOf, textIds, writingModel } from '@blip2/blip2';
import type { Blip2, Blip2Config, ImageInput } from '@blip2/blip2';
import { fitInt4, loadFolder, measureSmoothing } from '@blip2/blip2/node';
import type { FolderOptions, LayerErrors, MeasuredSmoothing, ScratchWeights } from '@blip2/blip2/node';
import { batches, readyDataset } from '@blip2/data-captions';
import type { Batch } from '@blip2/data-captions';
import { concat, dispose, slice, tensor, tidy } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { examplesOpener } from '@blip2/trainer';
import { openProcessor, openTexts } from './model';
import type { Ui } from './ui';

/** Rows on which layers are measured, those to which int4 is fitted, and at most so many on which the models are compared. */
const MEASURED = 8;
const FITTED = 128;
const COMPARED = 64;
const BATCH = 8;

export interface Rows {
  measured: Batch;
  /** One batch. */
  fitted: Batch;
  compared: Batch[];
}

/** A third of the rows, at most COMPARED, are compared, the others fitted and measured; chosen at random by openDataset. @throws DataError */
export async function openRows(model: string, data: string, ui: Ui): Promise<Rows> {
  const processor = await openProcessor(model);
  const texts = { ...(await openTexts(model, { task: 'caption' })), task: 'caption' } as const;
  const open = examplesOpener({ onMessage: (text) => ui.log(text) });
  const dataset = await open(data, { texts, skip_bad: true, limit: FITTED + COMPARED });
  const ready = readyDataset(dataset, processor, texts);
  const part = async (from: number, to: number, batch_size: number): Promise<Batch[]> => {
    const some = {
      ...ready,
      examples: ready.examples.slice(from, to),
      rows: (i: number) => ready.rows(from + i),
    };
    const all: Batch[] = [];
    for await (const batch of batches(some, processor, { batch_size, shuffle: false })) all.push(batch);
    return all;
  };
  const n = ready.examples.length;
  const fit = n - Math.min(COMPARED, Math.floor(n / 3));
  const [[measured], [fitted], compared] = await Promise.all([
    part(0, Math.min(fit, MEASURED), MEASURED),
    part(0, fit, fit),
    part(fit < n ? fit : 0, n, BATCH),
  ]);
  return { measured: measured!, fitted: fitted!, compared };
}

const pixelsOf = (batch: Batch) =>
  tensor<Tensor4D>(batch.pixel_values!, [batch.images.length, ...batch.imageShape]);

/** The errors of layers in 8 bits, those of the text model in `text_bits`; by default, of all layers. */
export async function measureLayers(
  dir: string,
  config: Blip2Config,
  { measured }: Rows,
  { text_bits, only }: { text_bits: 8 | 4; only?: (name: string) => boolean },
  ui: Ui,
): Promise<MeasuredSmoothing> {
  await useBackend('native', { precision: 'int8' });
  const run = (model: Blip2) => tidy(() => loss(model, { pixel_values: pixelsOf(measured) }, measured));
  const onProgress = (done: number, total: number) =>
    ui.progress('layers', `measuring layers: ${done} of ${total}`, done === total);
  return measureSmoothing(dir, config, run, { text_bits, only, onProgress });
}

/** Rounds the text model to int4, fitted to the rows, into `made`. The errors of its layers. */
export async function fitLayers(
  dir: string,
  config: Blip2Config,
  { fitted }: Rows,
  made: ScratchWeights,
  ui: Ui,
): Promise<ReadonlyMap<string, LayerErrors>> {
  await useBackend('native', { precision: 'int8' });
  return fitInt4(dir, config, (model) => tidy(() => loss(model, featuresOf(model, fitted), fitted)), {
    onWeight: (name, weight) => made.add(name, weight),
    onProgress: (done, total) => ui.progress('fit', `fitting layers: ${done} of ${total}`, done === total),
  });
}

/** What depends on the pictures alone, a few at a time, since the vision tower takes much memory for each. */
function featuresOf(model: Blip2, batch: Batch): ImageInput {
  const { name, run } = stagesOf(model.config).at(-1)!;
  const pixels = pixelsOf(batch);
  const [count, ...size] = pixels.shape;
  const parts = Array.from({ length: Math.ceil(count / BATCH) }, (_, i) =>
    tidy(() => {
      const some = slice(pixels, [i * BATCH, 0, 0, 0], [Math.min(BATCH, count - i * BATCH), ...size]);
      return run(model, some);
    }),
  );
  const all = concat(parts, 0);
  return name === 'image_features' ? { image_features: all } : { query_embeds: all };
}

interface Outcome {
  loss: number;
  /** The likeliest token at each labelled position. */
  tokens: number[];
}

/** The mean loss, and the share of positions at which a model would choose the same token as the exact one. */
export interface Agreement {
  rows: number;
  loss: { exact: number; quantised: number; plain?: number };
  same_tokens: number;
  /** With plain rounding of the text model to 4 bits, if it was fitted. */
  plain_same_tokens?: number;
}

/** Compares a checkpoint with its quantised copy, each in the precision in which it is used. */
export async function compareModels(
  dir: string,
  quantised: string,
  { compared }: Rows,
  fitted: boolean,
  ui: Ui,
): Promise<Agreement> {
  await useBackend('auto', { precision: 'auto' });
  const exact = await outcomeOf(dir, {}, compared, ui);
  if (fitted) await useBackend('native', { precision: 'int8' });
  const other = await outcomeOf(quantised, fitted ? { int8: {} } : {}, compared, ui);
  const share = ({ tokens }: Outcome) =>
    tokens.filter((token, i) => token === exact.tokens[i]).length / tokens.length;
  const rows = compared.reduce((sum, batch) => sum + batch.shape[0], 0);
  const found = {
    rows,
    loss: { exact: exact.loss, quantised: other.loss },
    same_tokens: share(other),
  };
  if (!fitted) return found;
  const plain = await outcomeOf(dir, { int8: { text_bits: 4 } }, compared, ui);
  return { ...found, loss: { ...found.loss, plain: plain.loss }, plain_same_tokens: share(plain) };
}

async function outcomeOf(
  dir: string,
  options: FolderOptions,
  compared: readonly Batch[],
  ui: Ui,
): Promise<Outcome> {
  const model = await loadFolder(dir, options);
  const writing = writingModel(model);
  const tokens: number[] = [];
  let total = 0;
  try {
    for (const [i, batch] of compared.entries()) {
      const pixel_values = pixelsOf(batch);
      const value = tidy(() => loss(model, { pixel_values }, batch));
      const { logits } = tidy(() => forward(writing, { pixel_values }, batch));
      total += (await value.data())[0]!;
      const shift = textIds(model.config).rows === 'causal' ? 1 : 0;
      tokens.push(...chosenTokens((await logits.data()) as Float32Array, batch, shift));
      dispose([value, logits, pixel_values]);
      ui.progress('compare', `comparing: ${i + 1} of ${compared.length} batches`, i + 1 === compared.length);
    }
  } finally {
    dispose(model);
  }
  return { loss: total / compared.length, tokens };
}

/** The likeliest tokens at the labelled positions; a causal text model predicts a label `shift` positions before it. */
function chosenTokens(logits: Float32Array, { labels }: Batch, shift: number): number[] {
  const V = logits.length / labels.length;
  const chosen: number[] = [];
  for (let i = shift; i < labels.length; i++) {
    if (labels[i]! < 0) continue;
    const scores = logits.subarray((i - shift) * V, (i - shift + 1) * V);
    let best = 0;
    for (let v = 1; v < V; v++) if (scores[v]! > scores[best]!) best = v;
    chosen.push(best);
  }
  return chosen;
}
