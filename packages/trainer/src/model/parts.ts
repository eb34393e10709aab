/** The functions that the training loop needs, from a run and its objective. */
import type { ReadyDataset } from '@blip2/data-captions';
import { countBatches } from '@blip2/data-captions';
import type { Key, Scalar, Tensor } from '@blip2/nn';
import { dispose, keep, sum, tidy } from '@blip2/nn';
import type { FitConfig } from '../config';
import type { Kind } from '../objective';
import type { Cached } from '../stages';
import { layerScale } from '../train/layer-decay';
import { createAdamW, decays } from '../train/optimizer';
import { makeSchedule } from '../train/schedule';
import type { TrainParts } from '../train/step';
import { firstBad } from '../train/step';
import type { TrainOptions } from '../train/train';
import { stepsPerEpoch } from '../train/train';
import { shareWork, sumNumbers } from '../train/world';

/** The length of a run and its intervals, in updates. */
export function trainOptions(
  config: FitConfig,
  examples: number,
  processes: number,
): TrainOptions & { perEpoch: number } {
  const batch_size = config.per_device_train_batch_size * processes;
  const batches = countBatches(examples, { batch_size });
  const perEpoch = stepsPerEpoch(batches, config.gradient_accumulation_steps);
  const totalSteps = config.max_steps ?? Math.max(1, Math.ceil(config.num_train_epochs * perEpoch));
  return {
    ...config,
    perEpoch,
    totalSteps,
    // about a hundred points on a curve
    logging_steps: config.logging_steps ?? Math.min(50, Math.ceil(totalSteps / 100)),
    eval_steps: config.eval_steps ?? perEpoch,
    save_steps: config.save_steps ?? perEpoch,
  };
}

export function trainParts<K extends Kind>(run: Cached<K>, totalSteps: number): TrainParts<K['batch']> {
  const { objective, config, data, trainables, model, world } = run;
  const batch_size = config.per_device_train_batch_size * world.size;
  const { gradient_checkpointing: checkpoint, label_smoothing_factor: label_smoothing } = config;
  const layers = model.config.vision_config.num_hidden_layers;
  return {
    trainables,
    world,
    optimizer: createAdamW(trainables, config, decays, layerScale(config.lr_layer_decay, layers)),
    schedule: makeSchedule(config, totalSteps),
    batchesPerEpoch: countBatches(data.train.examples.length, { batch_size }),
    batches: (epoch, first) => objective.trainingBatches(run, epoch, first),
    size: (batch) => objective.size(batch),
    loss: (batch, key) => objective.loss(run, batch, { key, checkpoint, label_smoothing }),
  };
}

/** Mean loss over a data set, without dropout, the same on every rank. @throws the errors of shareWork */
export async function evaluateLoss<K extends Kind>(run: Cached<K>, dataset: ReadyDataset): Promise<number> {
  const { objective } = run;
  let [total, tokens] = [0, 0];
  await shareWork(run.world, async () => {
    for await (const batch of objective.evaluationBatches(run, dataset)) {
      const { tokens: count } = objective.size(batch);
      if (count === 0) continue; // other ranks have all rows of this batch
      const value = tidy(() => objective.loss(run, batch, {}));
      total += (await value.data())[0] * count;
      tokens += count;
      dispose(value);
    }
  });
  const [all, counted] = await sumNumbers(run.world, [total, tokens]);
  return all / counted;
}

/** The first non-finite tensor of a step: a trained weight, else in the forward pass in order, else a gradient. */
export async function locateBad<K extends Kind>(
  run: Cached<K>,
  batches: K['batch'][],
  keys: Key[],
  grads: Map<string, Tensor>,
): Promise<string> {
  const weight = await firstBad(run.trainables);
  if (weight) return `the weight ${weight}`;
  for (const [i, batch] of batches.entries()) {
    const activation = await firstBadActivation(run, batch, keys[i]);
    if (activation) return `${activation} (images ${batch.examples.map(({ source }) => source).join(', ')})`;
  }
  const grad = await firstBad(grads);
  return grad ? `the gradient of ${grad}` : 'none of those looked at';
}

/** Checks sums instead of every element: a sum is finite only if every term is. */
async function firstBadActivation<K extends Kind>(
  run: Cached<K>,
  batch: K['batch'],
  key: Key,
): Promise<string | undefined> {
  const seen = new Map<string, Scalar>();
  const tap = (name: string, x: Tensor) => void seen.set(name, keep(sum(x) as Scalar));
  tidy(() => {
    const value = run.objective.loss(run, batch, { key, tap });
    seen.set('the loss', keep(value));
  });
  const name = await firstBad(seen);
  dispose([...seen.values()]);
  return name;
}
