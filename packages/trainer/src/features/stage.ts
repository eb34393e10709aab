/**
 * Which output of the frozen parts can be cached in place of the picture, and how it is computed.
 * Letters: B images, N patches + 1, Dv vision width, Q queries, Dt text width.
 */
import type { Blip2, Blip2Config, ImageInput, ImageStage } from '@blip2/blip2';
import { stagesOf } from '@blip2/blip2';
import type { Tensor3D, Tensor4D } from '@blip2/nn';
import { dispose, dropPages, flatten, tensor, tidy } from '@blip2/nn';

/** `image_features`: the vision tower's output [N, Dv]; `query_embeds`: the projected queries [Q, Dt]. */
export type CachedStage = ImageStage['name'];

/** The deepest stage that depends on no trained tensor, or undefined if the vision tower trains. */
export function cacheableStage(config: Blip2Config, trainables: Iterable<string>): CachedStage | undefined {
  const trained = new Set([...trainables].map((name) => name.split('.')[0]));
  const untouched = stagesOf(config).filter(({ parts }) => !parts.some((part) => trained.has(part)));
  return untouched.at(-1)?.name;
}

function stageOf(config: Blip2Config, name: CachedStage): ImageStage {
  const found = stagesOf(config).find((stage) => stage.name === name);
  if (!found) throw new Error(`feature cache: ${name} of this model depends on more than the picture`);
  return found;
}

/** A stage of a loaded model, whatever model that is. */
export interface LoadedStage extends Omit<ImageStage, 'run'> {
  /** pixel_values [B, 3, S, S] → [B, rows, cols] */
  run(pixel_values: Tensor4D): Tensor3D;
  /** S */
  image_size: number;
}

/** The stage of that name. @throws Error when its output does not depend on the picture alone in this model */
export function loadedStage(model: Blip2, name: CachedStage): LoadedStage {
  const { run, ...stage } = stageOf(model.config, name);
  const { image_size } = model.config.vision_config;
  return { ...stage, image_size, run: (pixel_values) => run(model, pixel_values) };
}

/** Takes the weights of a stage out of memory until they are used again. Where its outputs are cached, they rarely are. */
export function releaseStage({ config, params }: Blip2, name: CachedStage): void {
  const { parts } = stageOf(config, name);
  for (const [tensorName, leaf] of flatten(params))
    if (parts.includes(tensorName.split('.')[0])) dropPages(leaf);
}

/** [N, Dv] or [Q, Dt] of one image. */
export function stageShape(config: Blip2Config, stage: CachedStage): [rows: number, cols: number] {
  return stageOf(config, stage).shape;
}

/** Bytes of the float32 features of `images` images. */
export const cacheBytes = ([rows, cols]: readonly [number, number], images: number) =>
  images * rows * cols * 4;

/** Normalised images [3, H, W], side by side as one batch, through the frozen parts: one row of values per image. */
export async function runStage(
  { run, image_size: S }: LoadedStage,
  pixels: Float32Array[],
): Promise<Float32Array[]> {
  const output = tidy(() => run(tensor(joined(pixels), [pixels.length, 3, S, S]) as Tensor4D));
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
