/**
 * Work that is the same at every step is done once: the output of the deepest stage before anything that trains,
 * per image, in memory. Exact, because a part in which nothing trains runs as in evaluation.
 * Letters: B images, N patches + 1, Dv vision width, Q queries, Dt text width.
 */
import type { Blip2, Blip2Config, ImageInput } from '@blip2/blip2';
import { imageFeatures, queryEmbeds } from '@blip2/blip2';
import type { Processor } from '@blip2/data-captions';
import type { Tensor3D, Tensor4D } from '@blip2/nn';
import { dispose, tensor, tidy } from '@blip2/nn';

/** `image_features`: the vision tower's output [N, Dv]; `query_embeds`: the projected queries [Q, Dt]. */
export type CachedStage = 'image_features' | 'query_embeds';

export interface FeatureCache {
  stage: CachedStage;
  /** of one image */
  shape: [rows: number, cols: number];
  bytes: number;
  /** by image path */
  images: Map<string, Float32Array>;
}

export interface BuildOptions {
  batch_size: number;
  signal?: AbortSignal;
  onProgress?(done: number, total: number): void;
}

/** The deepest stage that no trained tensor reaches, or nothing when the vision tower trains. */
export function cacheableStage(trainables: Iterable<string>): CachedStage | undefined {
  const parts = new Set([...trainables].map((name) => name.split('.')[0]));
  if (parts.has('vision_model')) return undefined;
  const behindVision = ['qformer', 'query_tokens', 'language_projection'];
  return behindVision.some((part) => parts.has(part)) ? 'image_features' : 'query_embeds';
}

/** [N, Dv] or [Q, Dt] of one image. */
export function stageShape(config: Blip2Config, stage: CachedStage): [number, number] {
  if (stage === 'query_embeds') return [config.num_query_tokens, config.text_config.hidden_size];
  const { image_size, patch_size, hidden_size } = config.vision_config;
  return [(image_size / patch_size) ** 2 + 1, hidden_size];
}

/** Bytes that the float32 features of so many images take. */
export function cacheBytes(config: Blip2Config, stage: CachedStage, images: number): number {
  const [rows, cols] = stageShape(config, stage);
  return images * rows * cols * 4;
}

/**
 * Features of every distinct file of `files`. The next batch is decoded while the model works on this one.
 * @throws the signal's reason when it is raised
 */
export async function buildFeatureCache(
  model: Blip2,
  processor: Processor,
  files: string[],
  stage: CachedStage,
  o: BuildOptions,
): Promise<FeatureCache> {
  const distinct = [...new Set(files)];
  const shape = stageShape(model.config, stage);
  const images = new Map<string, Float32Array>();
  const decode = (from: number) =>
    Promise.all(distinct.slice(from, from + o.batch_size).map((f) => processor.pixels(f)));
  let next = decode(0);
  for (let from = 0; from < distinct.length; from += o.batch_size) {
    o.signal?.throwIfAborted();
    const pixels = await next;
    next = decode(from + o.batch_size);
    next.catch(() => undefined); // reported when it is awaited
    const rows = await runStage(model, processor, stage, pixels);
    rows.forEach((row, i) => images.set(distinct[from + i], row));
    o.onProgress?.(images.size, distinct.length);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return { stage, shape, bytes: cacheBytes(model.config, stage, distinct.length), images };
}

/** One batch through the frozen stage, one array per image. */
async function runStage(
  model: Blip2,
  processor: Processor,
  stage: CachedStage,
  pixels: Float32Array[],
): Promise<Float32Array[]> {
  const { height, width } = processor.imageSize;
  const output = tidy(() => {
    const x = tensor(joined(pixels), [pixels.length, 3, height, width]) as Tensor4D;
    const features = imageFeatures(model, x); // [B, N, Dv]
    return stage === 'image_features' ? features : queryEmbeds(model, features); // [B, Q, Dt]
  });
  const values = (await output.data()) as Float32Array;
  dispose(output);
  const size = values.length / pixels.length;
  return pixels.map((_, i) => values.slice(i * size, (i + 1) * size));
}

/** The cached features of these files, in their order, as the model's image input. */
export function cachedInput(cache: FeatureCache, files: string[]): ImageInput {
  const rows = files.map((file) => {
    const row = cache.images.get(file);
    if (!row) throw new Error(`feature cache: ${file} is not among its ${cache.images.size} images`);
    return row;
  });
  const x = tensor(joined(rows), [files.length, ...cache.shape]) as Tensor3D;
  return cache.stage === 'image_features' ? { image_features: x } : { query_embeds: x };
}

function joined(rows: Float32Array[]): Float32Array {
  const out = new Float32Array(rows.length * rows[0].length);
  rows.forEach((row, i) => out.set(row, i * row.length));
  return out;
}
