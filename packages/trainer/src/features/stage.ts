/**
 * Which output of the frozen parts can stand in for the picture, and how it is computed.
 * Letters: B images, N patches + 1, Dv vision width, Q queries, Dt text width.
 */
import type { Blip2, Blip2Config, ImageInput } from '@blip2/blip2';
import { imageFeatures, queryEmbeds } from '@blip2/blip2';
import type { Tensor3D, Tensor4D } from '@blip2/nn';
import { dispose, tensor, tidy } from '@blip2/nn';

/** `image_features`: the vision tower's output [N, Dv]; `query_embeds`: the projected queries [Q, Dt]. */
export type CachedStage = 'image_features' | 'query_embeds';

const BEHIND_VISION = ['qformer', 'query_tokens', 'language_projection'];

/** The deepest stage that no trained tensor reaches, or nothing when the vision tower trains. */
export function cacheableStage(trainables: Iterable<string>): CachedStage | undefined {
  const parts = new Set([...trainables].map((name) => name.split('.')[0]));
  if (parts.has('vision_model')) return undefined;
  return BEHIND_VISION.some((part) => parts.has(part)) ? 'image_features' : 'query_embeds';
}

/** The parts of the model that a stage's output depends on, as tensor names begin. */
export function stageParts(stage: CachedStage): string[] {
  return stage === 'image_features' ? ['vision_model'] : ['vision_model', ...BEHIND_VISION];
}

/** [N, Dv] or [Q, Dt] of one image. */
export function stageShape(config: Blip2Config, stage: CachedStage): [rows: number, cols: number] {
  if (stage === 'query_embeds') return [config.num_query_tokens, config.text_config.hidden_size];
  const { image_size, patch_size, hidden_size } = config.vision_config;
  return [(image_size / patch_size) ** 2 + 1, hidden_size];
}

/** Bytes that the float32 features of so many images take. */
export function cacheBytes(config: Blip2Config, stage: CachedStage, images: number): number {
  const [rows, cols] = stageShape(config, stage);
  return images * rows * cols * 4;
}

/** Normalised images [3, H, W], side by side as one batch, through the frozen parts: one row of values per image. */
export async function runStage(
  model: Blip2,
  stage: CachedStage,
  pixels: Float32Array[],
): Promise<Float32Array[]> {
  const { image_size } = model.config.vision_config;
  const output = tidy(() => {
    const x = tensor(joined(pixels), [pixels.length, 3, image_size, image_size]) as Tensor4D;
    const features = imageFeatures(model, x); // [B, N, Dv]
    return stage === 'image_features' ? features : queryEmbeds(model, features); // [B, Q, Dt]
  });
  const values = (await output.data()) as Float32Array;
  dispose(output);
  const size = values.length / pixels.length;
  return pixels.map((_, i) => values.slice(i * size, (i + 1) * size));
}

/** Rows of values as the model's image input. */
export function stageInput(stage: CachedStage, shape: [number, number], rows: Float32Array): ImageInput {
  const x = tensor(rows, [rows.length / (shape[0] * shape[1]), ...shape]) as Tensor3D;
  return stage === 'image_features' ? { image_features: x } : { query_embeds: x };
}

/** One array after the other. */
export function joined(rows: Float32Array[]): Float32Array {
  const out = new Float32Array(rows.reduce((sum, row) => sum + row.length, 0));
  let at = 0;
  for (const row of rows) {
    out.set(row, at);
    at += row.length;
  }
  return out;
}
