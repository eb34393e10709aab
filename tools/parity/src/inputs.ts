/** A case's models, and its batches as inputs of the model. */
import { join, resolve } from 'node:path';
import type { Blip2, Blip2Options, ImageInput, TokenBatch } from '@blip2/blip2';
import { imagePixels, parseImageConfig } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import { tensor } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { CaseError, caseTensor } from './case-file';
import type { Case, InputsJson, TokensJson } from './case-file';

/** Models and processor of a case; each is loaded once, at the first call. */
export interface Setup {
  of: Case;
  /** With the case's adapter. */
  model(): Promise<Blip2>;
  /** Without it. */
  base(): Promise<Blip2>;
  processor(): Promise<Processor>;
}

export interface Batch {
  image: ImageInput | undefined;
  tokens: TokenBatch;
  options: Blip2Options;
}

export function tokenBatch({
  shape,
  input_ids,
  attention_mask,
  labels,
  instructions,
}: TokensJson): TokenBatch {
  return {
    shape,
    input_ids: Int32Array.from(input_ids),
    attention_mask: Int32Array.from(attention_mask),
    ...(labels && { labels: Int32Array.from(labels) }),
    ...(instructions && { instructions: tokenBatch(instructions) }),
  };
}

/** The batch of that name. @throws CaseError if there is none */
export async function batchOf(of: Case, name: string): Promise<Batch> {
  const json = of.inputs[name];
  if (!json) throw new CaseError(`${join(of.folder, 'case.json')}: inputs: expected "${name}", found none`);
  const { interpolate_pos_encoding } = json;
  return {
    image: await imageOf(of, json),
    tokens: tokenBatch(json),
    options: interpolate_pos_encoding ? { interpolate_pos_encoding } : {},
  };
}

async function imageOf(
  of: Case,
  { pixel_values, images, size }: InputsJson,
): Promise<ImageInput | undefined> {
  if (pixel_values) return { pixel_values: caseTensor<Tensor4D>(of, pixel_values) };
  if (!images || !size) return undefined;
  const config = parseImageConfig({ size }, 'case.json', { image_orientation: 'ignore' });
  const rows = await Promise.all(images.map((image) => imagePixels(resolve(of.folder, image), config)));
  const values = new Float32Array(rows.length * rows[0].length);
  rows.forEach((row, i) => values.set(row, i * row.length));
  return { pixel_values: tensor<Tensor4D>(values, [rows.length, 3, size.height, size.width]) };
}
