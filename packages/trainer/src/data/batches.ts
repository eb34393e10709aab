/** The batches of a run: token rows, and pixels or cached features. */
import type { LossInput } from '@blip2/blip2';
import type { Batch, EpochOptions, ReadyDataset } from '@blip2/data-captions';
import { batches } from '@blip2/data-captions';
import type { Tensor2D, Tensor4D } from '@blip2/nn';
import { tensor } from '@blip2/nn';
import type { FeatureCache } from '../features';
import type { HiddenCache } from '../features/hidden';
import { cachedInput, stageInput } from '../features';
import type { Kind } from '../objective';
import type { Cached } from '../stages';

/** A batch with the cached features of its pictures, [P, …] values of the cached stage, or with its hidden states [N, Dt]. */
export interface RunBatch extends Batch {
  features?: Float32Array;
  hidden?: Float32Array;
}

/** The share of this rank in an epoch of the training data, from batch number `first` on, in random order. */
export function trainingBatches<K extends Kind>(
  run: Cached<K>,
  epoch: number,
  first: number,
  group_captions: boolean,
): AsyncIterable<RunBatch> {
  const { seed, per_device_train_batch_size: batch_size, image_augmentation: augment } = run.config;
  return runBatches(run, run.data.train, {
    batch_size,
    seed,
    epoch,
    start_batch: first,
    augment,
    group_captions,
  });
}

/** The share of this rank in a data set, in its order. */
export function evaluationBatches<K extends Kind>(
  run: Cached<K>,
  dataset: ReadyDataset,
): AsyncIterable<RunBatch> {
  return runBatches(run, dataset, { batch_size: run.config.per_device_eval_batch_size, shuffle: false });
}

/** Reads images only if there is no cache. */
function runBatches<K extends Kind>(
  { processor, cache, hidden, world }: Cached<K>,
  dataset: ReadyDataset,
  epoch: EpochOptions,
): AsyncIterable<RunBatch> {
  const shard = { index: world.rank, count: world.size };
  const made = batches(dataset, processor, { ...epoch, shard, withPixels: !cache });
  return cache ? withFeatures(cache, hidden, made) : made;
}

/** Adds the features to each batch. Those of the next batch are read while the model computes. */
async function* withFeatures(
  cache: FeatureCache,
  hidden: HiddenCache | undefined,
  made: AsyncIterable<Batch>,
): AsyncGenerator<RunBatch, void, undefined> {
  const load = async (batch: Batch): Promise<RunBatch> =>
    hidden && batch.indices.length > 0
      ? { ...batch, hidden: await hidden.rows(batch, () => cachedInput(cache, batch.images)) }
      : { ...batch, features: await cache.rows(batch.images) };
  let ready: Promise<RunBatch> | undefined;
  for await (const batch of made) {
    const next = load(batch);
    next.catch(() => undefined); // reported when it is awaited
    if (ready) yield await ready;
    ready = next;
  }
  if (ready) yield await ready;
}

/** Of a batch what is cached, or its pixels. */
export function batchInput({ cache, model }: Pick<Cached, 'cache' | 'model'>, batch: RunBatch): LossInput {
  const { hidden, features } = batch;
  if (hidden) {
    const D = model.config.text_config.hidden_size;
    return { hidden: tensor<Tensor2D>(hidden, [hidden.length / D, D]) };
  }
  if (cache) return stageInput(cache.stage, cache.shape, features!);
  const shape = [batch.images.length, ...batch.imageShape];
  return { pixel_values: tensor(batch.pixel_values!, shape) as Tensor4D };
}
