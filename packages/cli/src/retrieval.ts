/** Opens a model for retrieval, and embeds pictures and texts with it, a batch at a time. */
import { imagePixels, loadImageConfig, loadTokenizer } from '@blip2/data-captions';
import type { Tokenizer } from '@blip2/data-captions';
import { dispose, slice, tensor, tidy, tile } from '@blip2/nn';
import type { Tensor2D, Tensor3D, Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { embedImages, embedTexts, imageTokens, matchScores, similarity, textRows } from '@blip2/retrieval';
import type { RetrievalModel } from '@blip2/retrieval';
import { isRetrievalFolder, loadRetrievalModel } from '@blip2/retrieval/node';
import { adapterFolder } from '@blip2/trainer';
import type { Command } from 'commander';
import { withBase } from './base';
import type { ModelFlags } from './model';
import { modelDir } from './model';
import { backendOption, decodingOf, imageOptions, positive, precision } from './options';
import type { Ui } from './ui';

export interface RetrievalFlags extends ModelFlags {
  batchSize: number;
}

export interface OpenedRetrieval {
  model: RetrievalModel;
  tokenizer: Tokenizer;
  pixels: (image: string) => Promise<Float32Array>;
  batchSize: number;
}

/** Adds the options of RetrievalFlags. */
export function retrievalOptions(target: Command): Command {
  return imageOptions(target)
    .option('--model <dir>', 'checkpoint folder of a model for retrieval, such as Salesforce/blip2-itm-vit-g')
    .option('--adapter <dir>', 'PEFT adapter to apply, as fit saves it; names its base if --model is missing')
    .addOption(backendOption())
    .addOption(precision().default('auto'))
    .option('--batch-size <n>', 'images or texts at a time', positive, 16);
}

/** Whether a model's folder has a model for retrieval. A folder without config.json is reported by whoever opens it. */
export const isRetrievalModel = (model: string): boolean => isRetrievalFolder(modelDir(model));

/** @throws UsageError without a model; AdapterError */
export async function openRetrieval(given: RetrievalFlags, ui: Ui): Promise<OpenedRetrieval> {
  const flags = await withBase(given, ui);
  const dir = modelDir(flags.model);
  const adapter = flags.adapter === undefined ? undefined : await loadAdapter(adapterFolder(flags.adapter));
  const processing = await loadImageConfig(dir, decodingOf(flags));
  const tokenizer = await loadTokenizer(dir);
  await useBackend(flags.backend, { precision: flags.precision });
  const base = await loadRetrievalModel(dir, {
    onProgress: ({ loaded, total }) => {
      if (total > 1e8)
        ui.progress('load', `loading ${((100 * loaded) / total).toFixed(0)} %`, loaded === total);
    },
  });
  const params = adapter ? applyAdapter(base.params, adapter, { ties: [] }) : base.params;
  const model = { ...base, params };
  const pixels = (image: string) => imagePixels(image, processing);
  return { model, tokenizer, pixels, batchSize: flags.batchSize };
}

/** Calls `work` with the image tokens [B, N, E] of each batch of pictures. */
export async function eachBatch(
  { model, pixels, batchSize }: OpenedRetrieval,
  images: readonly string[],
  ui: Ui,
  work: (tokens: Tensor3D, from: number) => Promise<void>,
): Promise<void> {
  const { image_size: S } = model.config.vision_config;
  for (let from = 0; from < images.length; from += batchSize) {
    const batch = images.slice(from, from + batchSize);
    const values = new Float32Array(batch.length * 3 * S * S);
    (await Promise.all(batch.map(pixels))).forEach((one, i) => values.set(one, i * 3 * S * S));
    const tokens = tidy(() => imageTokens(model, tensor<Tensor4D>(values, [batch.length, 3, S, S])));
    await work(tokens, from).finally(() => dispose(tokens));
    const done = from + batch.length;
    ui.progress('images', `${done} of ${images.length} images`, done === images.length);
  }
}

/** The vectors of a batch of pictures, Q · P numbers each. */
export async function imageVectors({ model }: OpenedRetrieval, tokens: Tensor3D): Promise<Float32Array[]> {
  const embeds = embedImages(model, tokens);
  const values = (await embeds.data()) as Float32Array;
  dispose(embeds);
  return rowsOf(values, embeds.shape[0]);
}

/** The vectors of texts, P numbers each. */
export async function textVectors(
  opened: OpenedRetrieval,
  texts: readonly string[],
): Promise<Float32Array[]> {
  const { model, tokenizer, batchSize } = opened;
  const vectors: Float32Array[] = [];
  for (let from = 0; from < texts.length; from += batchSize) {
    const embeds = embedTexts(model, textRows(tokenizer, texts.slice(from, from + batchSize), model.config));
    vectors.push(...rowsOf((await embeds.data()) as Float32Array, embeds.shape[0]));
    dispose(embeds);
  }
  return vectors;
}

/** Similarities of all pictures with all texts, row-major [pictures, texts]. */
export async function similarities(
  opened: OpenedRetrieval,
  images: readonly string[],
  texts: readonly string[],
  ui: Ui,
): Promise<Float32Array> {
  const vectors = await textVectors(opened, texts);
  const P = opened.model.config.image_text_hidden_size;
  const all = new Float32Array(texts.length * P);
  vectors.forEach((vector, i) => all.set(vector, i * P));
  const scores = new Float32Array(images.length * texts.length);
  const words = tensor<Tensor2D>(all, [texts.length, P]);
  await eachBatch(opened, images, ui, async (tokens, from) => {
    const found = tidy(() => similarity(embedImages(opened.model, tokens), words));
    scores.set((await found.data()) as Float32Array, from * texts.length);
    dispose(found);
  });
  dispose(words);
  return scores;
}

/** Logits of "they match", of each picture with those texts that `wanted` gives for it, with the picture's number. */
export async function eachMatch(
  opened: OpenedRetrieval,
  images: readonly string[],
  wanted: (image: number) => readonly string[],
  ui: Ui,
  found: (image: number, logits: Float32Array[]) => void,
): Promise<void> {
  const { model, tokenizer, batchSize } = opened;
  await eachBatch(opened, images, ui, async (tokens, from) => {
    const [B, N, E] = tokens.shape;
    for (let b = 0; b < B; b++) {
      const texts = wanted(from + b);
      const all: Float32Array[] = [];
      for (let at = 0; at < texts.length; at += batchSize) {
        const rows = textRows(tokenizer, texts.slice(at, at + batchSize), model.config);
        const scores = tidy(() => {
          const own = tile(slice(tokens, [b, 0, 0], [1, N, E]), [rows.shape[0], 1, 1]);
          return matchScores(model, own, rows);
        });
        all.push(...rowsOf((await scores.data()) as Float32Array, rows.shape[0]));
        dispose(scores);
      }
      found(from + b, all);
    }
  });
}

function rowsOf(values: Float32Array, rows: number): Float32Array[] {
  const size = values.length / rows;
  return Array.from({ length: rows }, (_, i) => values.slice(i * size, (i + 1) * size));
}
