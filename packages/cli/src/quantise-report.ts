/** What quantising does to a model on the user's rows: errors of layers, the loss, and the tokens that it would choose. */
import { forward, loss, textIds } from '@blip2/blip2';
import type { Blip2, Blip2Config } from '@blip2/blip2';
import { loadFolder, measureSmoothing } from '@blip2/blip2/node';
import type { MeasuredSmoothing } from '@blip2/blip2/node';
import { batches, readyDataset } from '@blip2/data-captions';
import type { Batch } from '@blip2/data-captions';
import { dispose, tensor, tidy } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { examplesOpener } from '@blip2/trainer';
import { openProcessor, openTexts } from './model';
import type { Ui } from './ui';

/** Rows on which layers are measured, and at most so many on which the models are compared. */
const MEASURED = 8;
const COMPARED = 64;
const BATCH = 8;

export interface Rows {
  measured: Batch;
  compared: Batch[];
}

/** Different rows for both, or the same ones if there are too few; chosen at random by openDataset. @throws DataError */
export async function openRows(model: string, data: string, ui: Ui): Promise<Rows> {
  const processor = await openProcessor(model);
  const texts = { ...(await openTexts(model, { task: 'caption' })), task: 'caption' } as const;
  const open = examplesOpener({ onMessage: (text) => ui.log(text) });
  const dataset = await open(data, { texts, skip_bad: true, limit: MEASURED + COMPARED });
  const ready = readyDataset(dataset, processor, texts);
  const all: Batch[] = [];
  for await (const batch of batches(ready, processor, { batch_size: BATCH, shuffle: false })) all.push(batch);
  return { measured: all[0]!, compared: all.length > 1 ? all.slice(1) : all };
}

const pixelsOf = (batch: Batch) =>
  tensor<Tensor4D>(batch.pixel_values!, [batch.images.length, ...batch.imageShape]);

/** The errors of layers in 8 bits, those of the text model in `text_bits`, and factors that make them smaller. */
export async function measureLayers(
  dir: string,
  config: Blip2Config,
  { measured }: Rows,
  text_bits: 8 | 4,
  ui: Ui,
): Promise<MeasuredSmoothing> {
  await useBackend('native', { precision: 'int8' });
  const run = (model: Blip2) => tidy(() => loss(model, { pixel_values: pixelsOf(measured) }, measured));
  const onProgress = (done: number, total: number) =>
    ui.progress('layers', `measuring layers: ${done} of ${total}`, done === total);
  return measureSmoothing(dir, config, run, { text_bits, onProgress });
}

interface Outcome {
  loss: number;
  /** The likeliest token at each labelled position. */
  tokens: number[];
}

export interface Agreement {
  rows: number;
  loss: { exact: number; quantised: number };
  /** The share of positions at which both models would choose the same token. */
  same_tokens: number;
}

/** Compares a checkpoint with its quantised copy, each in the precision in which it is used. */
export async function compareModels(
  dir: string,
  quantised: string,
  { compared }: Rows,
  ui: Ui,
): Promise<Agreement> {
  const exact = await outcomeOf(dir, compared, ui);
  const other = await outcomeOf(quantised, compared, ui);
  const same = exact.tokens.filter((token, i) => token === other.tokens[i]).length;
  const rows = compared.reduce((sum, batch) => sum + batch.shape[0], 0);
  return {
    rows,
    loss: { exact: exact.loss, quantised: other.loss },
    same_tokens: same / exact.tokens.length,
  };
}

async function outcomeOf(dir: string, compared: readonly Batch[], ui: Ui): Promise<Outcome> {
  await useBackend('auto', { precision: 'auto' });
  const model = await loadFolder(dir);
  const tokens: number[] = [];
  let total = 0;
  try {
    for (const [i, batch] of compared.entries()) {
      const pixel_values = pixelsOf(batch);
      const value = tidy(() => loss(model, { pixel_values }, batch));
      const { logits } = tidy(() => forward(model, { pixel_values }, batch));
      total += (await value.data())[0]!;
      const shift = textIds(model.config).rows === 'causal' ? 1 : 0;
      tokens.push(...chosenTokens((await logits.data()) as Float32Array, batch, shift));
      dispose([value, logits, pixel_values]);
      ui.progress('compare', `comparing: ${i + 1} of ${compared.length} batches`, i + 1 === compared.length);
    }
  } finally {
    dispose(model.params);
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
