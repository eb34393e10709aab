/**
 * The smoothing of a run in int8: factors of the columns of its rounded weights, measured once on some of its training rows. They are
 * kept in the run folder, so that the run is continued, and its result used, with the same weights; and in the cache folder, for other runs
 * with the same rows.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { utimes } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { loss } from '@blip2/blip2';
import type { Smoothing } from '@blip2/blip2';
import {
  checkpointIdentity,
  loadConfig,
  measureSmoothing,
  MOST_ERRORS,
  readSmoothing,
  smoothingDigest,
  writeSmoothing,
} from '@blip2/blip2/node';
import type { LayerErrors } from '@blip2/blip2/node';
import type { Batch } from '@blip2/data-captions';
import { batches } from '@blip2/data-captions';
import { tensor, tidy, weightBits } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { makeFolders, resolveModel } from '@blip2/weights/node';
import { defaultCacheDir } from '../features/store';
import type { WorkHooks } from '../hooks';
import type { Checkpoint } from '../run/checkpoint';
import { RunFolderError } from '../run/folder';
import type { Planned } from '../stages';

/** In the run folder. */
const SMOOTHING = 'smoothing.safetensors';

/** Training rows that are measured. */
export const MEASURED_ROWS = 8;

/**
 * The smoothing of a run: that of its folder if it is resumed, else that of the cache, else measured now.
 * @throws RunFolderError if the run cannot continue with the weights that it began with
 */
export async function runSmoothing(
  planned: Planned,
  resumeFrom: Checkpoint | undefined,
  hooks: WorkHooks,
): Promise<Smoothing | undefined> {
  const { config } = planned;
  const bits = weightBits(config.precision);
  if (!bits) return undefined;
  if (resumeFrom) return resumedSmoothing(config.output_dir, resumeFrom);
  const batch = await measuredRows(planned);
  const cache_dir = config.cache_dir ?? defaultCacheDir();
  const file = join(cache_dir, `smoothing-${await keyOf(config.model, batch, bits)}.safetensors`);
  return (await cached(file)) ?? measured(planned, batch, file, hooks);
}

/** The smoothing of the run that an adapter or a saved model lies in; undefined if it lies in none, or in one without. */
export async function smoothingOfRun(folder: string): Promise<Smoothing | undefined> {
  const file = join(dirname(resolve(folder)), SMOOTHING);
  return existsSync(file) ? readSmoothing(file) : undefined;
}

/** Keeps the smoothing in the run folder, with the names of what trains. */
export async function writeRunSmoothing(
  output_dir: string,
  smoothing: Smoothing,
  trained: Iterable<string>,
): Promise<void> {
  await writeSmoothing(join(output_dir, SMOOTHING), { ...smoothing, trained: [...trained] });
}

async function resumedSmoothing(dir: string, { identity }: Checkpoint): Promise<Smoothing | undefined> {
  if (identity.smoothing === undefined) return undefined; // an earlier version began this run
  const file = join(dir, SMOOTHING);
  const found = await readSmoothing(file).catch((error: Error) => error);
  if (found instanceof Error) throw notResumed(file, found.message);
  if (smoothingDigest(found) === identity.smoothing) return found;
  throw notResumed(file, 'expected the factors that the run began with, found others');
}

const notResumed = (file: string, why: string) =>
  new RunFolderError(
    `${file}: cannot resume in int8: ${why}\nRestore this file, or start a new run in another folder.`,
  );

/** Evenly spread over the training rows, so that they depend on the data alone. */
async function measuredRows({ data: { train }, processor }: Planned): Promise<Batch> {
  const count = Math.min(MEASURED_ROWS, train.examples.length);
  const indices = Array.from({ length: count }, (_, i) => Math.floor((i * train.examples.length) / count));
  const examples = indices.map((i) => train.examples[i]);
  const some = { ...train, examples, rows: (i: number) => train.rows(indices[i]) };
  const { value } = await batches(some, processor, { batch_size: count, shuffle: false }).next();
  return value as Batch;
}

/** Of the checkpoint, and of the pixels and tokens. */
async function keyOf(
  model: string,
  { pixel_values, input_ids, labels }: Batch,
  bits: 8 | 4,
): Promise<string> {
  const hash = createHash('sha256').update(
    `${bits === 8 ? 1 : 'int4 1'} ${await checkpointIdentity(resolveModel(model))}\n`,
  );
  for (const { buffer, byteOffset, byteLength } of [pixel_values!, input_ids, labels])
    hash.update(new Uint8Array(buffer, byteOffset, byteLength)).update(`\n${byteLength}\n`);
  return hash.digest('hex').slice(0, 32);
}

/** A file that cannot be read is made again. */
async function cached(file: string): Promise<Smoothing | undefined> {
  if (!existsSync(file)) return undefined;
  const now = new Date();
  await utimes(file, now, now).catch(() => undefined); // the last use, for `blip2 cache`
  return readSmoothing(file).catch(() => undefined);
}

async function measured(
  { config }: Planned,
  batch: Batch,
  file: string,
  { onMessage, onPhase }: WorkHooks,
): Promise<Smoothing> {
  const dir = resolveModel(config.model);
  const begin = performance.now();
  const phase = { name: `measuring layers for ${config.precision}` };
  onPhase?.({ ...phase, done: 0, total: 1 });
  const pixels = () => tensor<Tensor4D>(batch.pixel_values!, [batch.images.length, ...batch.imageShape]);
  const found = await measureSmoothing(
    dir,
    await loadConfig(dir),
    (model) => tidy(() => loss(model, { pixel_values: pixels() }, batch)),
    {
      text_bits: weightBits(config.precision),
      onProgress: (done, total) => onPhase?.({ ...phase, done, total }),
    },
  );
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  onMessage?.(
    `${config.precision} weights: ${errorLine(found.errors)} on ${batch.examples.length} training rows, ${seconds} s`,
  );
  try {
    await makeFolders(dirname(file));
    await writeSmoothing(file, found);
  } catch (error) {
    onMessage?.(`${config.precision} weights: ${file} cannot be written (${(error as Error).message})`);
  }
  return found;
}

function errorLine(errors: ReadonlyMap<string, LayerErrors>): string {
  const mean = (of: keyof LayerErrors) =>
    ((100 * [...errors.values()].reduce((sum, e) => sum + e[of], 0)) / errors.size).toFixed(2);
  return `smoothed, mean error of ${errors.size} layers ${mean('chosen')} % (${mean('plain')} % without)`;
}

/** One line about the layers that stay exact, if there are any. */
export function exactLine({ exact }: Smoothing): string | undefined {
  if (exact.length === 0) return undefined;
  const some = exact.slice(0, 3).join(', ');
  return (
    `rounded weights: ${exact.length} layers keep their exact ones, because rounding changed their outputs by more than ` +
    `${100 * MOST_ERRORS[8]} % (in 4 bits ${100 * MOST_ERRORS[4]} %): ${some}${exact.length > 3 ? ', …' : ''}`
  );
}
