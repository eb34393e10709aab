/** Golden cases for specs: results of transformers, written by tools/parity/make_model_fixtures.py. */
import { fileURLToPath } from 'node:url';
import { nest, rngKey, tensor, variable } from '@blip2/nn';
import type { StageOptions, Tensor } from '@blip2/nn';
import { openWeights } from '@blip2/weights/node';
import { expect } from 'vitest';

export interface GoldenTensor {
  shape: number[];
  values: Float32Array;
}
export interface Golden {
  config: unknown;
  tensors: Map<string, GoldenTensor>;
}

/** Reads `fixtures/NAME.safetensors` of a package; `spec` is the URL of the calling spec in its src/. */
export async function readGolden(spec: string, name: string): Promise<Golden> {
  const file = fileURLToPath(new URL(`../fixtures/${name}.safetensors`, spec));
  const reader = await openWeights(file);
  const tensors = new Map<string, GoldenTensor>();
  for (const [key, { shape }] of reader.entries)
    tensors.set(key, { shape, values: await reader.readFloat32(key) });
  const config: unknown = JSON.parse(reader.metadata.config);
  await reader.close();
  return { config, tensors };
}

export function get(golden: Golden, name: string): GoldenTensor {
  const found = golden.tensors.get(name);
  if (!found) throw new Error(`the fixture has no tensor ${name}`);
  return found;
}

export function toTensor<T extends Tensor>(golden: Golden, name: string): T {
  const { shape, values } = get(golden, name);
  return tensor<T>(values, shape);
}

/** The names that begin with `prefix`, with the prefix removed. */
export function namesUnder(golden: Golden, prefix: string): string[] {
  return [...golden.tensors.keys()].filter((n) => n.startsWith(prefix)).map((n) => n.slice(prefix.length));
}

/** The weights of the fixture as a parameter tree; leaves for which `trains` is true are Variables. */
export function weightTree<T>(golden: Golden, trains: (name: string) => boolean = () => false): T {
  const leaves = namesUnder(golden, 'weights.').map((name) => {
    const value = toTensor(golden, `weights.${name}`);
    return [name, trains(name) ? variable(value) : value] as const;
  });
  return nest(leaves) as T;
}

/**
 * Expects the largest difference to be at most `tolerance` times the largest expected value (or `floor`, for tensors that should be
 * 0), over the elements for which `keep` is true.
 */
export function expectClose(
  actual: Tensor,
  expected: GoldenTensor,
  tolerance: number,
  { floor = 0, keep = () => true }: { floor?: number; keep?: (i: number) => boolean } = {},
): void {
  expect(actual.shape).toEqual(expected.shape);
  const found = actual.dataSync();
  let largest = floor;
  let off = 0;
  expected.values.forEach((v, i) => {
    if (!keep(i)) return;
    largest = Math.max(largest, Math.abs(v));
    const difference = Math.abs(found[i] - v);
    if (!(difference <= off)) off = difference; // also NaN
  });
  expect(largest).toBeGreaterThan(0);
  expect(off / largest).toBeLessThanOrEqual(tolerance);
}

/** Expects dropout only with a key, and the same result for the same key, with or without checkpointing. */
export function expectKeyedDropout(run: (o: StageOptions) => number[]): void {
  const dropped = run({ dropout: rngKey(1) });
  expect(run({ dropout: rngKey(1) })).toEqual(dropped);
  expect(run({ dropout: rngKey(1), checkpoint: true })).toEqual(dropped);
  expect(run({ dropout: rngKey(2) })).not.toEqual(dropped);
  expect(run({})).not.toEqual(dropped);
}
