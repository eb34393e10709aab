/** The facts of a plan from the model's folder, the data and this machine. */
import { existsSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { blip2Weights, parseConfig } from '@blip2/blip2';
import type { Blip2Config } from '@blip2/blip2';
import { loadConfig } from '@blip2/blip2/node';
import { batches, imageId } from '@blip2/data-captions';
import type { Dataset, Example, Processor, ReadyDataset } from '@blip2/data-captions';
import type { BackendReport } from '@blip2/nn';
import { openWeights, readJsonFile, resolveModel } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import type { FitData, ReadyData } from '../data/open';
import { finalSplit } from '../data/open';
import { promptOf, referenceOf } from '../evaluation';
import { defaultCacheDir, freeBytes } from '../features';
import { amountOf } from '../features/run-hidden';
import type { DataFacts, MachineFacts, ModelFacts } from './facts';

type DType = ModelFacts['dtype'];
const STORED: Readonly<Record<string, DType>> = { float16: 'F16', bfloat16: 'BF16', float32: 'F32' };
const WIDTH = { F32: 4, F16: 2, BF16: 2 } as const;

/** A checkpoint's folder, its name on the hub if it is in the cache, or a config.json alone. @throws ModelError, WeightsError */
export async function modelFacts(model: string): Promise<ModelFacts> {
  if (model.endsWith('.json')) return declared(parseConfig(await readJsonFile(model), model));
  const dir = resolveModel(model);
  const config = await loadConfig(dir);
  const files = (await readdir(dir)).filter((name) => name.endsWith('.safetensors'));
  if (files.length === 0) return declared(config);
  const reader = await openWeights(dir);
  try {
    const sizes = new Map<string, number>();
    const quantised = new Map<string, number>();
    for (const { name, dtype, shape, begin, end, ...entry } of reader.entries.values()) {
      const numbers = shape.reduce((a, b) => a * b, 1);
      if (entry.quantised)
        quantised.set(name, end - begin + numbers / (entry.quantised.kind === 'BNB4' ? 16 : 64));
      else sizes.set(dtype, (sizes.get(dtype) ?? 0) + numbers);
    }
    const [most] = [...sizes].sort(([, a], [, b]) => b - a);
    const bytes = await Promise.all(files.map(async (name) => (await stat(join(dir, name))).size));
    const largest = files[bytes.indexOf(Math.max(...bytes))];
    return {
      config,
      dtype: most[0] as DType,
      quantised,
      bytes: bytes.reduce((a, b) => a + b, 0),
      file: join(dir, largest),
    };
  } finally {
    await reader.close();
  }
}

/** Without weights: as the configuration says. */
function declared(config: Blip2Config): ModelFacts {
  const dtype = STORED[String(config.raw.dtype ?? config.raw.torch_dtype)] ?? 'F32';
  const parameters = blip2Weights(config).reduce(
    (total, [, shape]) => total + shape.reduce((a, b) => a * b, 1),
    0,
  );
  return { config, dtype, bytes: parameters * WIDTH[dtype] };
}

/** Bytes that a process may use: of the machine, or of the container. */
export function machineMemory(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

export async function machineFacts(
  { name, precision, tried }: BackendReport,
  { output_dir, cache_dir }: FitConfig,
  memory?: number,
): Promise<MachineFacts> {
  const disk = {
    output: await freeBytes(dirname(join(process.cwd(), output_dir))),
    cache: await freeBytes(cache_dir ?? defaultCacheDir()),
  };
  const stores = name === 'native' || name === 'webgpu';
  const usable = memory ?? tried.at(-1)?.memory ?? machineMemory();
  return { memory: usable, disk, backend: name, precision, stores };
}

/** Batches whose texts are looked at for the mean length. */
const BATCHES = 100;
/** Reading more pictures to find equal ones would take longer than a plan may. */
export const HASHED = 20_000;

/**
 * @param processor without one, lengths are estimated from characters
 * @param hashed up to so many pictures are read to find equal ones; of more, each file counts
 */
export async function dataFacts(
  data: FitData | ReadyData,
  config: FitConfig,
  processor?: Processor,
  hashed = 0,
): Promise<DataFacts> {
  const { train, validation } = data;
  const final = finalSplit(config, data)?.dataset;
  const losses = 'lossRows' in data ? data.lossRows : validation;
  const counts = {
    rows: train.examples.length,
    validation: validation?.examples.length ?? 0,
    losses: losses?.examples.length ?? 0,
    final: final?.examples.length ?? 0,
    prompts: new Set(final?.examples.map((example) => promptOf(example, config))).size,
  };
  const ids = await contentIds([train, validation, final], hashed);
  const pictures = new Set(ids.values()).size;
  const answers = (final ?? train).examples.map((example) => referenceOf(example, config.task));
  if (!processor || !('lossRows' in data))
    return { ...counts, pictures, ...estimated([train, losses], answers, config, ids) };
  const lengths = answers.map((text) => processor.tokenizer.encode(text).length + 1); // and the end token
  const generated = meanOfLongest(lengths, config.per_device_eval_batch_size);
  const taught = amountOf([data.train, data.lossRows], (file) => ids.get(file)!);
  return { ...counts, pictures, ...(await batchFacts(data.train, config, processor)), generated, taught };
}

/** The content id of each picture, or its file name if there are more than `hashed` or it cannot be read. */
async function contentIds(
  sets: (Dataset | undefined)[],
  hashed: number,
): Promise<ReadonlyMap<string, string>> {
  const files = [...new Set(sets.flatMap((set) => set?.examples.map(({ image }) => image) ?? []))];
  const ids = new Map(files.map((file) => [file, file]));
  if (files.length > hashed) return ids;
  for (let from = 0; from < files.length; from += 16)
    await Promise.all(
      files.slice(from, from + 16).map(async (file) => ids.set(file, await imageId(file).catch(() => file))),
    );
  return ids;
}

/** Of the first batches of a run. */
async function batchFacts(
  train: ReadyDataset,
  config: FitConfig,
  processor: Processor,
): Promise<Pick<DataFacts, 'tokens' | 'pictures_per_row'>> {
  const { per_device_train_batch_size: batch_size, seed } = config;
  const group_captions = config.group_captions === 'auto';
  const order = { batch_size, seed, epoch: 0, group_captions, withPixels: false };
  let [tokens, most, rows, pictures, seen] = [0, 0, 0, 0, 0];
  for await (const { attention_mask, images, indices } of batches(train, processor, order)) {
    const positions = attention_mask.reduce((sum, m) => sum + m, 0);
    const own = positions - indices.length * processor.numQueryTokens;
    most = Math.max(most, own / indices.length);
    [tokens, rows, pictures] = [tokens + own, rows + indices.length, pictures + images.length];
    if (++seen === BATCHES) break;
  }
  return { tokens: { mean: tokens / rows, most }, pictures_per_row: pictures / rows };
}

/** The mean over batches of their longest text. */
function meanOfLongest(lengths: number[], batch: number): number {
  const groups = Array.from({ length: Math.ceil(lengths.length / batch) }, (_, i) =>
    Math.max(...lengths.slice(i * batch, (i + 1) * batch)),
  );
  return groups.reduce((a, b) => a + b, 0) / Math.max(1, groups.length);
}

/** English text has about four characters per token. */
function estimated(
  [train, losses]: [Dataset, Dataset | undefined],
  answers: string[],
  config: FitConfig,
  ids: ReadonlyMap<string, string>,
) {
  const tokens = (text: string) => Math.ceil(text.length / 4) + 2;
  const lengthOf = (example: Example) =>
    tokens(`${example.question ?? ''} ${referenceOf(example, config.task)}`);
  const lengths = train.examples.map(lengthOf);
  const total = lengths.reduce((a, b) => a + b, 0);
  const mean = total / lengths.length;
  const all = [...train.examples, ...(losses?.examples ?? [])];
  const own = new Set(train.examples.map(({ image }) => image)).size;
  return {
    tokens: { mean, most: lengths.reduce((a, b) => Math.max(a, b), 0) },
    pictures_per_row: config.group_captions === 'auto' ? own / lengths.length : 1,
    taught: {
      pictures: new Set(all.map(({ image }) => ids.get(image))).size,
      texts: all.length,
      tokens: Math.ceil(all.length * mean),
    },
    generated: meanOfLongest(answers.map(tokens), config.per_device_eval_batch_size),
    estimated: true,
  };
}

/** Whether texts can be tokenised: a config.json alone has no tokenizer. */
export const hasTokenizer = (model: string): boolean =>
  !model.endsWith('.json') && existsSync(join(resolveModel(model), 'tokenizer.json'));
