/** What a run works with, once data, model and cache are there. */
import type { Blip2, ImageInput } from '@blip2/blip2';
import type { Batch, Dataset, Example, Processor } from '@blip2/data-captions';
import { batches, promptBatch } from '@blip2/data-captions';
import type { Tensor4D, Variable } from '@blip2/nn';
import { tensor } from '@blip2/nn';
import type { Checkpoint, RunIdentity } from '../run/checkpoint';
import type { FitConfig } from '../config';
import { ConfigError } from '../config';
import type { CaptionOptions, generateCaptions } from '../evaluation';
import { promptOf } from '../evaluation';
import type { FeatureCache } from '../features';
import { cachedInput, stageInput } from '../features';
import type { FitData } from './open';

export interface Session {
  config: FitConfig;
  dir: string;
  /** the folder that was asked for; `dir` may be numbered */
  wanted: string;
  identity: RunIdentity;
  /** the checkpoint that a resumed run goes on from */
  resumeFrom?: Checkpoint;
  backend: string;
  processor: Processor;
  data: FitData;
  model: Blip2;
  trainables: Map<string, Variable>;
  /** what environment.json says beside the machine */
  environment: Record<string, unknown>;
  cache?: FeatureCache;
  /** what writes texts; another may stand in for it */
  generate: typeof generateCaptions;
}

export interface CacheHooks {
  signal?: AbortSignal;
  onMessage?(text: string): void;
  onPhase?(phase: { name: string; done: number; total: number }): void;
}

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

/** A batch with what stands in for its images, when that is cached: [B, …] values of the cached stage. */
export interface RunBatch extends Batch {
  features?: Float32Array;
}

/** The batches of a data set as this run sees them; images are read only when they are not cached. */
export async function* sessionBatches(
  { config, processor, cache, model }: BatchSource,
  dataset: Dataset,
  o: { shuffle: boolean; epoch?: number; first?: number; withPixels?: boolean },
): AsyncGenerator<RunBatch, void, undefined> {
  const { task, prompt, seed, max_text_length, image_augmentation } = config;
  const room = model.config.text_config.max_position_embeddings - processor.numQueryTokens;
  const made = batches(dataset, processor, {
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
    augment: o.shuffle ? image_augmentation : undefined,
  });
  if (cache && o.withPixels !== false) yield* withFeatures(cache, made);
  else yield* made;
}

/** Adds the features to each batch; those of the next one are read while the model works on this one. */
async function* withFeatures(
  cache: FeatureCache,
  made: AsyncIterable<Batch>,
): AsyncGenerator<RunBatch, void, undefined> {
  const load = async (batch: Batch) => ({ ...batch, features: await cache.rows(imagesOf(batch)) });
  let ready: Promise<RunBatch> | undefined;
  for await (const batch of made) {
    const next = load(batch);
    next.catch(() => undefined); // reported when it is awaited
    if (ready) yield await ready;
    ready = next;
  }
  if (ready) yield await ready;
}

const imagesOf = ({ examples }: Batch) => examples.map(({ image }) => image);

/** A batch's images at the deepest stage that is known. */
export function batchImage({ cache }: Session, batch: RunBatch): ImageInput {
  if (cache) return stageInput(cache.stage, cache.shape, batch.features!);
  const shape = [batch.examples.length, ...batch.imageShape];
  return { pixel_values: tensor(batch.pixel_values!, shape) as Tensor4D };
}

/** How this run generates texts for `examples`. */
export function captionOptions({ config, cache }: Session, examples: Example[]): CaptionOptions {
  const { task, prompt, per_device_eval_batch_size } = config;
  const { max_new_tokens, num_beams, ...generation } = config.generation;
  const embeds = cache && ((indices: number[]) => cachedInput(cache, indices.map((i) => examples[i].image))); // prettier-ignore
  const lengths = { max_new_tokens, num_beams, batch_size: per_device_eval_batch_size };
  return { task, prompt, ...lengths, generation, embeds };
}

/** What the model says now about these examples, one text each. @throws the signal's reason when it is raised */
export function textsOf(
  session: Session,
  examples: Example[],
  more: Pick<CaptionOptions, 'signal' | 'onProgress'> = {},
): Promise<string[]> {
  const options = { ...captionOptions(session, examples), ...more };
  return session.generate(session.model, session.processor, examples, options);
}
