/**
 * Factors of the columns of int8 weights (SmoothQuant, Xiao et al. 2023), found by running the exact model on some pictures and texts. Where a
 * few columns of the input of a linear layer are much larger than the others, one scale for a whole row would round the others away; so
 * they are multiplied by small factors before rounding, and their columns of the weight were divided by these.
 */
import { createHash } from 'node:crypto';
import {
  columnMaxima,
  dispose,
  dropPages,
  flatten,
  gatherRows,
  inFloat32,
  keep,
  linear,
  reshape,
  storedTensor,
  tidy,
  watchLinears,
} from '@blip2/nn';
import type { StoredWeight, Tensor, Tensor1D, Tensor2D } from '@blip2/nn';
import { show, WeightsError } from '@blip2/weights';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import { floorOf } from './column-floor';
import { bitsOf, isRounded, loadWeights, roundedWeight } from './load';
import type { Smoothing } from './load';
import type { Blip2Config } from './config';
import type { Blip2 } from './model';
import { storedWeight } from './stored-weight';

/** A weight whose outputs change by more than this keeps its exact values: root mean square over rows of their relative errors. */
export const MOST_ERROR = 0.05;
/** By the bits of the weight: plain rounding to 4 bits changes outputs by about 0.1. */
export const MOST_ERRORS = { 8: MOST_ERROR, 4: 0.25 } as const;

/** Exponents that are tried: factor = (largest of the weight's column)^(1 - α) / (largest of x)^α. 0 is without smoothing. */
const ALPHAS = [0, 0.25, 0.5, 0.75];
/** For 4 bits: factor = 1 / (mean magnitude of x)^α, so that columns with large inputs are rounded well (AWQ, Lin et al. 2023). */
const ALPHAS_4 = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];

/** How many factors are tried for a weight, by its bits. */
export const SMOOTHING_TRIALS = { 8: ALPHAS.length, 4: ALPHAS_4.length } as const;

/** Rows of the input of a layer on which its error is measured. */
const ROWS = 64;

/** Errors of a layer: with all factors 1, and with the chosen ones. */
export interface LayerErrors {
  plain: number;
  chosen: number;
}

export interface MeasuredSmoothing extends Smoothing {
  /** Of the layers that the run reached, by the names of their weights. */
  readonly errors: ReadonlyMap<string, LayerErrors>;
}

/** What a linear layer was given. */
interface Inputs {
  most: Tensor1D; // [K]
  rows: Tensor2D; // [≤ ROWS, K]
}

export interface MeasureOptions {
  /** instead of MOST_ERROR */
  most_error?: number;
  /** of the text model's weights; by default 8 */
  text_bits?: 8 | 4;
  /** Which weights are measured; by default, all that are rounded. */
  only?: (name: string) => boolean;
  onProgress?: (done: number, total: number) => void;
}

/**
 * Runs the exact model of a checkpoint folder once, on what `run` gives it, and chooses the factors that change the outputs of each linear
 * layer least. The precision int8 must be active. Weights stay in their files and are dropped from memory after their use.
 */
export async function measureSmoothing(
  dir: string,
  config: Blip2Config,
  run: (model: Blip2) => Tensor,
  { most_error, text_bits, only = () => true, onProgress }: MeasureOptions = {},
): Promise<MeasuredSmoothing> {
  const reader = await openWeights(dir);
  const seen = new Map<string, Inputs>();
  try {
    const exact = (weight: StoredWeight, atLeast?: number) => inFloat32(() => storedTensor(weight, atLeast));
    const model = await loadWeights(config, reader, {}, undefined, exact);
    const measured = (name: string) => only(name) && isRounded(name, reader.entries.get(name)!);
    try {
      observe(model, run, measured, seen);
    } finally {
      dispose(model.params);
    }
    const factors = new Map<string, Float32Array>();
    const errors = new Map<string, LayerErrors>();
    for (const [name, inputs] of seen) {
      const { factors: chosen, ...error } = await choose(
        (await storedWeight(reader.entries.get(name)!, reader))!,
        inputs,
        bitsOf(name, text_bits),
      );
      if (chosen) factors.set(name, chosen);
      errors.set(name, error);
      onProgress?.(errors.size, seen.size);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const most = (name: string) => most_error ?? MOST_ERRORS[bitsOf(name, text_bits)];
    const worst = [...errors].filter(([name, { chosen }]) => !(chosen <= most(name)));
    return { factors, exact: worst.map(([name]) => name), errors };
  } finally {
    for (const { most, rows } of seen.values()) dispose([most, rows]);
    await reader.close();
  }
}

/** Fills `seen`, by the names of weights. Of a layer that runs several times, the first counts. */
function observe(
  { config, params }: Blip2,
  run: (model: Blip2) => Tensor,
  only: (name: string) => boolean,
  seen: Map<string, Inputs>,
): void {
  const names = new Map<object, string>();
  for (const [name, leaf] of flatten(params))
    if (isRounded(name, leaf) && only(name)) names.set(leaf.dataId, name);
  let used: Tensor | undefined;
  const watch = (weight: Tensor2D, x: Tensor) => {
    if (used) dropPages(used);
    used = weight;
    const name = names.get(weight.dataId);
    if (name === undefined || seen.has(name)) return;
    seen.set(
      name,
      tidy(() => ({ most: keep(columnMaxima(x)), rows: keep(someRows(x)) })),
    );
  };
  watchLinears(watch, () => run({ config, params })).dispose();
}

/** Rows of an input [..., K], evenly spread: at most ROWS, and at most this part of them. */
export function someRows(x: Tensor, part = 1): Tensor2D {
  const K = x.shape[x.shape.length - 1]!;
  const M = x.size / K;
  const count = Math.max(1, Math.min(Math.floor(M * part), ROWS));
  const chosen = Int32Array.from({ length: count }, (_, i) => Math.floor((i * M) / count));
  return gatherRows(reshape<Tensor2D>(x, [M, K]), chosen);
}

interface Choice extends LayerErrors {
  factors?: Float32Array;
}

/** The factors with the smallest error. */
async function choose(weight: StoredWeight, { most, rows }: Inputs, bits: 8 | 4): Promise<Choice> {
  const exact = inFloat32(() => storedTensor(weight, 1))!;
  const wanted = inFloat32(() => linear({ weight: exact }, rows));
  const largest = columnMaxima(exact);
  dropPages(exact);
  const [y, x, w, some] = await Promise.all(
    [wanted, most, largest, rows].map((t) => t.data() as Promise<Float32Array>),
  );
  const means = meanMagnitudes(some!, rows.shape[1]);
  dispose([exact, wanted, largest]);
  let best: Choice | undefined;
  for (const alpha of bits === 8 ? ALPHAS : ALPHAS_4) {
    const found = bits === 8 ? factorsOf(x!, w!, alpha) : inverseOf(means, alpha);
    const factors = alpha === 0 ? undefined : found;
    const rounded = storedTensor(roundedWeight(weight, factors, bits), 1)!;
    const made = linear({ weight: rounded }, rows);
    const error = relativeError((await made.data()) as Float32Array, y!, rows.shape[0]);
    dispose([rounded, made]);
    best ??= { plain: error, chosen: error };
    if (error < best.chosen) best = { factors, plain: best.plain, chosen: error };
  }
  return best!;
}

/** Bounded where a column is small in these pictures, since it may be larger in others. */
function factorsOf(x: Float32Array, w: Float32Array, alpha: number): Float32Array | undefined {
  const [least, smallest] = [floorOf(x), floorOf(w)];
  if (!(least > 0 && smallest > 0)) return undefined; // also where a number is not finite
  return x.map((most, k) => Math.max(w[k]!, smallest) ** (1 - alpha) / Math.max(most, least) ** alpha);
}

function inverseOf(means: Float32Array, alpha: number): Float32Array | undefined {
  const least = floorOf(means);
  return least > 0 ? means.map((mean) => 1 / Math.max(mean, least) ** alpha) : undefined;
}

/** Of each of `columns` columns. */
function meanMagnitudes(x: Float32Array, columns: number): Float32Array {
  const means = new Float32Array(columns);
  x.forEach((value, i) => (means[i % columns]! += (Math.abs(value) * columns) / x.length));
  return means;
}

/** Root mean square over rows of |found - wanted| / |wanted|; rows of zeros are left out. */
function relativeError(found: Float32Array, wanted: Float32Array, rows: number): number {
  const N = wanted.length / rows;
  let [total, counted] = [0, 0];
  for (let r = 0; r < rows; r++) {
    let [error, size] = [0, 0];
    for (let i = r * N; i < (r + 1) * N; i++) {
      error += (found[i]! - wanted[i]!) ** 2;
      size += wanted[i]! ** 2;
    }
    if (size === 0) continue;
    total += error / size;
    counted++;
  }
  return counted === 0 ? 0 : Math.sqrt(total / counted);
}

/** SHA-256 of all that influences the rounded weights. */
export function smoothingDigest({ factors, exact }: Smoothing): string {
  const hash = createHash('sha256').update(JSON.stringify([...exact].sort()));
  for (const name of [...factors.keys()].sort()) {
    const { buffer, byteOffset, byteLength } = factors.get(name)!;
    hash.update(`\n${name} ${byteLength}\n`).update(new Uint8Array(buffer, byteOffset, byteLength));
  }
  return hash.digest('hex');
}

const FORMAT = 'blip2-smoothing-1';

/** Writes factors and names to a safetensors file, atomically. */
export async function writeSmoothing(
  file: string,
  { factors, exact, trained = [] }: Smoothing,
): Promise<void> {
  const tensors = [...factors].map(
    ([name, data]) => ({ name, dtype: 'F32', shape: [data.length], data }) as const,
  );
  await writeSafetensors(file, tensors, {
    format: FORMAT,
    exact: JSON.stringify(exact),
    trained: JSON.stringify(trained),
  });
}

/** Reads a file of `writeSmoothing`. @throws WeightsError */
export async function readSmoothing(file: string): Promise<Smoothing> {
  const reader = await openWeights(file);
  try {
    const { format, exact, trained } = reader.metadata;
    if (format !== FORMAT)
      throw new WeightsError(
        `${file}: expected the format ${FORMAT}, found ${format ?? 'none'}; restore the file`,
      );
    const factors = new Map<string, Float32Array>();
    for (const name of reader.entries.keys()) {
      const values = await reader.readFloat32(name);
      if (!values.every((value) => value > 0 && Number.isFinite(value)))
        throw new WeightsError(`${file}: ${name}: expected positive numbers; restore the file`);
      factors.set(name, values);
    }
    return { factors, exact: namesIn(exact, file), trained: namesIn(trained, file) };
  } finally {
    await reader.close();
  }
}

function namesIn(json: string | undefined, file: string): string[] {
  let names: unknown;
  try {
    names = JSON.parse(json ?? '');
  } catch {
    names = undefined;
  }
  if (Array.isArray(names) && names.every((name) => typeof name === 'string')) return names as string[];
  throw new WeightsError(`${file}: expected lists of names, found ${show(json)}; restore the file`);
}
