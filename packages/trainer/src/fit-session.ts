/** What a run works with, once data, model and cache are there. */
import type { Blip2, ImageInput } from '@blip2/blip2';
import type { Batch, Dataset, Example, Processor } from '@blip2/data-captions';
import { batches, promptBatch } from '@blip2/data-captions';
import type { Tensor4D, Variable } from '@blip2/nn';
import { tensor } from '@blip2/nn';
import type { FitConfig } from './config';
import { ConfigError } from './config-schema';
import type { CaptionOptions } from './evaluation';
import { promptOf } from './evaluation';
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
  /** what environment.json says beside the machine */
  environment: Record<string, unknown>;
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

/** What batches depend on; of the model only its sizes. */
type BatchSource = Pick<Session, 'config' | 'processor' | 'cache'> & { model: Pick<Blip2, 'config'> };

/**
 * Tokenises every text of the run once, and the prompts of the final table, so that one which the model has no room for is
 * reported now and not in the middle of an epoch.
 * @throws DataError for a text that is too long or spells out a special token; ConfigError for generation without room
 */
export async function checkTexts(source: BatchSource, data: FitData, hooks: CacheHooks): Promise<void> {
  const sets = [data.train, data.validation, data.test].filter((set) => set !== undefined);
  const total = sets.reduce((sum, set) => sum + set.examples.length, 0);
  let done = 0;
  for (const set of sets)
    for await (const { examples } of sessionBatches(source, set, { shuffle: false, withPixels: false })) {
      done += examples.length;
      hooks.onPhase?.({ name: 'checking texts', done, total });
    }
  const { config, processor, model } = source;
  const asked = [data.validation, data.test].flatMap((set) => set?.examples ?? []);
  const prompts = new Set(asked.map((example) => promptOf(example, config)));
  const [, length] = promptBatch(processor, [...prompts]).shape;
  const { max_position_embeddings } = model.config.text_config;
  const room = max_position_embeddings + 1 - length; // the last new token is never read
  if (prompts.size > 0 && config.generation.max_new_tokens > room)
    throw new ConfigError('generation.max_new_tokens', [
      `expected at most ${room}, found ${config.generation.max_new_tokens}: the model has ${max_position_embeddings} positions, ` +
        `image and longest prompt take ${length}`,
    ]);
}

/** The batches of a data set as this run sees them; images are read only when they are not cached. */
export function sessionBatches(
  { config, processor, cache, model }: BatchSource,
  dataset: Dataset,
  o: { shuffle: boolean; epoch?: number; first?: number; withPixels?: boolean },
): AsyncGenerator<Batch, void, undefined> {
  const { task, prompt, seed, max_text_length } = config;
  const room = model.config.text_config.max_position_embeddings - processor.numQueryTokens;
  return batches(dataset, processor, {
    task,
    prompt,
    seed,
    max_text_length: Math.min(max_text_length ?? room, room),
    truncate: max_text_length !== undefined,
    batch_size: o.shuffle ? config.per_device_train_batch_size : config.per_device_eval_batch_size,
    shuffle: o.shuffle,
    epoch: o.epoch,
    start_batch: o.first,
    withPixels: o.withPixels ?? !cache,
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
