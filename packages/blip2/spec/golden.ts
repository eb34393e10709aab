/** The golden values of fixtures/, made by tools/parity/make_blip2_fixture.py, and helpers to compare with them. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { flatten, tensor } from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import { openWeights } from '@blip2/weights/node';
import type { GenerateOptions, TokenBatch } from '../src/index';

export const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
export const tiny = `${fixtures}tiny`;

interface JsonTokens {
  shape: [number, number];
  input_ids: number[];
  attention_mask: number[];
  labels?: number[];
  loss?: number;
}
interface Golden {
  cases: Record<'right' | 'left' | 'left_plain' | 'text' | 'adapter', JsonTokens>;
  generate: { name: string; tokens: JsonTokens; options: GenerateOptions; ids: number[][] }[];
}

export const golden = JSON.parse(readFileSync(`${fixtures}golden.json`, 'utf8')) as Golden;

export function batch({ shape, input_ids, attention_mask, labels }: JsonTokens): TokenBatch {
  return {
    shape,
    input_ids: Int32Array.from(input_ids),
    attention_mask: Int32Array.from(attention_mask),
    ...(labels && { labels: Int32Array.from(labels) }),
  };
}

export interface Floats {
  shape: number[];
  values: Float32Array;
}

/** Every tensor of golden.safetensors by name. */
export async function goldenFloats(): Promise<Map<string, Floats>> {
  const reader = await openWeights(`${fixtures}golden.safetensors`);
  const floats = new Map<string, Floats>();
  for (const [name, { shape }] of reader.entries)
    floats.set(name, { shape, values: await reader.readFloat32(name) });
  await reader.close();
  return floats;
}

/** The values of every leaf of a tree, by name. */
export async function leafValues(tree: object): Promise<Map<string, Float32Array>> {
  const found = new Map<string, Float32Array>();
  for (const [name, t] of flatten(tree)) found.set(name, (await t.data()) as Float32Array);
  return found;
}

/** The first `rows` rows of a golden tensor. */
export function asTensor<T extends Tensor>({ shape, values }: Floats, rows = shape[0]): T {
  const size = (values.length / shape[0]) * rows;
  return tensor<T>(values.slice(0, size), [rows, ...shape.slice(1)]);
}

/** Largest difference divided by the largest magnitude. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Infinity;
  let [difference, size] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i] - expected[i]));
    size = Math.max(size, Math.abs(expected[i]));
  }
  return difference / size;
}
