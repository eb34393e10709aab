/** What a run works with, once data, model and cache are there. */
import type { Blip2, ImageInput } from '@blip2/blip2';
import type { Batch, Dataset, Example, Processor } from '@blip2/data-captions';
import { batches } from '@blip2/data-captions';
import type { Tensor4D, Variable } from '@blip2/nn';
import { tensor } from '@blip2/nn';
import type { FitConfig } from './config';
import type { CaptionOptions } from './evaluation';
import type { FeatureCache } from './feature-cache';
import { buildFeatureCache, cacheableStage, cacheBytes, cachedInput } from './feature-cache';
import type { FitData } from './fit-data';
import { finalSplit } from './fit-data';

export interface Session {
  config: FitConfig;
  dir: string;
  backend: string;
  processor: Processor;
  data: FitData;
  model: Blip2;
  trainables: Map<string, Variable>;
  cache?: FeatureCache;
}

export interface CacheHooks {
  signal?: AbortSignal;
  onMessage?(text: string): void;
  onPhase?(phase: { name: string; done: number; total: number }): void;
}

/** The cache of everything the run looks at, when it is exact, wanted and small enough; says which it is. */
export async function makeCache(session: Session, hooks: CacheHooks): Promise<FeatureCache | undefined> {
  const { config, data, model, processor } = session;
  const say = hooks.onMessage ?? (() => undefined);
  const stage = cacheableStage(session.trainables.keys());
  if (!config.cache_features || !stage) {
    say(stage ? 'feature cache: off' : 'feature cache: none, because the vision tower trains');
    return undefined;
  }
  const sets = [data.train, data.validation, finalSplit(config, data)?.dataset];
  const files = new Set(sets.flatMap((set) => set?.examples.map(({ image }) => image) ?? []));
  const bytes = cacheBytes(model.config, stage, files.size);
  const size = `${stage} of ${files.size.toLocaleString('en')} images, ${mib(bytes)}`;
  if (bytes > config.cache_limit_mb * 2 ** 20) {
    say(
      `feature cache: none; ${size} is above cache_limit_mb (${config.cache_limit_mb}), so frozen parts run at each step`,
    );
    return undefined;
  }
  const begin = performance.now();
  const cache = await buildFeatureCache(model, processor, [...files], stage, {
    batch_size: config.per_device_eval_batch_size,
    signal: hooks.signal,
    onProgress: (done, total) => hooks.onPhase?.({ name: 'caching features', done, total }),
  });
  say(`feature cache: ${size}, made in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  return cache;
}

const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** The batches of a data set as this run sees them; images are read only when they are not cached. */
export function sessionBatches(
  { config, processor, cache }: Session,
  dataset: Dataset,
  o: { shuffle: boolean; epoch?: number; first?: number },
): AsyncGenerator<Batch, void, undefined> {
  const { task, prompt, seed, max_text_length } = config;
  return batches(dataset, processor, {
    task,
    prompt,
    seed,
    max_text_length,
    truncate: max_text_length !== undefined,
    batch_size: o.shuffle ? config.per_device_train_batch_size : config.per_device_eval_batch_size,
    shuffle: o.shuffle,
    epoch: o.epoch,
    start_batch: o.first,
    withPixels: !cache,
  });
}

/** A batch's images at the deepest stage that is known. */
export function batchImage({ cache }: Session, batch: Batch): ImageInput {
  if (cache) return cachedInput(cache, batch.examples.map(({ image }) => image)); // prettier-ignore
  const shape = [batch.examples.length, ...batch.imageShape];
  return { pixel_values: tensor(batch.pixel_values!, shape) as Tensor4D };
}

/** How this run generates texts for `examples`. */
export function captionOptions({ config, cache }: Session, examples: Example[]): CaptionOptions {
  const { task, prompt, generation, per_device_eval_batch_size } = config;
  const embeds = cache && ((indices: number[]) => cachedInput(cache, indices.map((i) => examples[i].image))); // prettier-ignore
  return { task, prompt, batch_size: per_device_eval_batch_size, ...generation, embeds };
}
