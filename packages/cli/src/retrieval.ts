/** Opens a model for retrieval, and embeds pictures and texts with it, a batch at a time. */
import { imagePixels, loadImageConfig, loadTokenizer } from '@blip2/data-captions';
import type { Tokenizer } from '@blip2/data-captions';
import { dispose, tensor, tidy } from '@blip2/nn';
import type { Tensor2D, Tensor3D, Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { embedImages, embedTexts, imageTokens, similarity, textRows } from '@blip2/retrieval';
import type { RetrievalModel } from '@blip2/retrieval';
import { isRetrievalFolder, loadRetrievalModel } from '@blip2/retrieval/node';
import type { Command } from 'commander';
import type { ModelFlags } from './model';
import { modelDir } from './model';
import { backendOption, decodingOf, imageOptions, positive, precision } from './options';
import type { Ui } from './ui';

export interface RetrievalFlags extends Omit<ModelFlags, 'adapter'> {
  model: string;
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
    .requiredOption(
      '--model <dir>',
      'checkpoint folder of a model for retrieval, such as Salesforce/blip2-itm-vit-g',
    )
    .addOption(backendOption())
    .addOption(precision().default('auto'))
    .option('--batch-size <n>', 'images or texts at a time', positive, 16);
}

/** Whether a model's folder has a model for retrieval. A folder without config.json is reported by whoever opens it. */
export const isRetrievalModel = (model: string): boolean => isRetrievalFolder(modelDir(model));

export async function openRetrieval(flags: RetrievalFlags, ui: Ui): Promise<OpenedRetrieval> {
  const dir = modelDir(flags.model);
  const processing = await loadImageConfig(dir, decodingOf(flags));
  const tokenizer = await loadTokenizer(dir);
  await useBackend(flags.backend, { precision: flags.precision });
  const model = await loadRetrievalModel(dir, {
    onProgress: ({ loaded, total }) => {
      if (total > 1e8)
        ui.progress('load', `loading ${((100 * loaded) / total).toFixed(0)} %`, loaded === total);
    },
  });
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

function rowsOf(values: Float32Array, rows: number): Float32Array[] {
  const size = values.length / rows;
  return Array.from({ length: rows }, (_, i) => values.slice(i * size, (i + 1) * size));
}
