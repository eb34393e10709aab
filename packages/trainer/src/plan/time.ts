/** Time of a run from measured kernels. */
import { countBatches } from '@blip2/data-captions';
import { blip2Weights, stagesOf } from '@blip2/blip2';
import type { FitConfig } from '../config';
import { trainOptions } from '../model/parts';
import { resultBytes } from './disk';
import type { CachePlan } from './disk';
import type { PlanFacts, StepCost } from './facts';
import { trainedBy } from './layers';

/** Seconds. */
export interface TimeParts {
  /** reading the data, and reading and checking the model's files, for the run and for the key of the feature cache */
  loading: number;
  /** computing the features of all pictures, once */
  features: number;
  /** all optimizer steps */
  training: number;
  /** all evaluations and sample texts during training */
  evaluation: number;
  /** writing and checking checkpoints and the result */
  saving: number;
  /** texts of the final table and its controls */
  final: number;
  /** one epoch of training, without the features */
  epoch: number;
  total: number;
}

export function timeOf(facts: PlanFacts, config: FitConfig, cache: CachePlan): TimeParts | undefined {
  const cost = facts.measured.steps[config.preset];
  if (!cost) return undefined;
  const { data } = facts;
  const { totalSteps, perEpoch, save_steps } = trainOptions(config, data.rows, 1);
  const batches = countBatches(data.rows, { batch_size: config.per_device_train_batch_size });
  const step = stepSeconds(cost, config, data.rows / batches, inputSeconds(facts, cache));
  const parts = {
    loading: facts.measured.starting + loadSeconds(facts, cache),
    features: cache.kept === 'none' ? 0 : data.pictures * pictureSeconds(facts, cache),
    training: totalSteps * step,
    evaluation: evaluationSeconds(facts, config, cache, totalSteps),
    saving: savingSeconds(facts, config, totalSteps, save_steps),
    final: finalSeconds(facts, config, cache),
  };
  const total = Object.values(parts).reduce((sum, part) => sum + part, 0);
  return { ...parts, epoch: perEpoch * step, total };
}

/** An optimizer step over micro-batches of `rows` pictures. */
function stepSeconds(cost: StepCost, config: FitConfig, rows: number, input: number): number {
  const micro = rows * (cost.compute / cost.batch + input);
  return config.gradient_accumulation_steps * micro + cost.update;
}

/** Checksums of all files, and for the cache's key those of the tensors before the features, and the features of one picture. */
function loadSeconds({ model, measured }: PlanFacts, { kept, stage }: CachePlan): number {
  const all = model.bytes * measured.byte;
  if (kept === 'none' || kept === 'memory' || !stage) return all;
  const { parts } = stagesOf(model.config).find(({ name }) => name === stage)!;
  const [total, before] = [() => true, (part: string) => parts.includes(part)].map((counts) =>
    blip2Weights(model.config)
      .filter(([name]) => counts(name.split('.')[0]))
      .reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0),
  );
  return all * (1 + before / total) + (measured.stages[stage]?.seconds ?? 0);
}

/** Reading a picture and running it through the parts before `stage`. */
function pictureSeconds({ measured }: PlanFacts, { stage }: CachePlan): number {
  return measured.picture + (stage ? (measured.stages[stage]?.seconds ?? 0) : 0);
}

/** What each visit of a picture costs before the parts that train: nothing with a cache. */
function inputSeconds(facts: PlanFacts, cache: CachePlan): number {
  return cache.kept === 'none' ? pictureSeconds(facts, cache) : 0;
}

/** A loss of all validation rows, and texts if wanted; and texts of a few pictures before, during and after training. */
function evaluationSeconds(facts: PlanFacts, config: FitConfig, cache: CachePlan, steps: number): number {
  const { data, measured } = facts;
  const { eval_steps } = trainOptions(config, data.rows, 1);
  const { sample_steps, num_samples, predict_with_generate } = config;
  const cost = measured.steps[config.preset]!;
  const input = inputSeconds(facts, cache);
  const loss = data.losses * (cost.forward / cost.batch + input);
  const texts = predict_with_generate ? textSeconds(facts, config, data.validation, input) : 0;
  const evaluations = data.validation > 0 ? Math.ceil(steps / eval_steps) : 0;
  const samples = sample_steps === undefined ? 0 : 1 + Math.ceil(steps / sample_steps);
  const few = Math.min(num_samples, data.validation || data.rows);
  return evaluations * (loss + texts) + samples * textSeconds(facts, config, few, input);
}

function textSeconds({ measured, data }: PlanFacts, config: FitConfig, rows: number, input: number): number {
  const cost = measured.generation;
  if (!cost) return 0;
  const batches = Math.ceil(rows / config.per_device_eval_batch_size);
  const tokens = Math.min(data.generated, config.generation.max_new_tokens ?? Infinity);
  const prompts = (cost.prompt / cost.rows) * rows;
  return prompts + batches * config.generation.num_beams * cost.token * tokens + rows * input;
}

/** Weights and moments of a checkpoint are written, flushed, and read again for their checksum; the result is written once. */
function savingSeconds(
  { model, measured }: PlanFacts,
  config: FitConfig,
  steps: number,
  every: number,
): number {
  const trained = trainedBy(model.config, config);
  const checkpoints = Math.ceil(steps / every) * 3 * 12 * trained.trainable;
  return measured.byte * (checkpoints + resultBytes(trained));
}

/** Texts after training, with shuffled pictures and with a blank one; with controls also before training, and raw pixels. */
function finalSeconds(facts: PlanFacts, config: FitConfig, cache: CachePlan): number {
  const { data, measured } = facts;
  if (config.final_evaluation === 'none' || data.final === 0) return 0;
  const input = inputSeconds(facts, cache);
  const passes = config.controls ? 3 : 2;
  const blank = textSeconds(facts, config, data.prompts, pictureSeconds(facts, cache));
  const pixels = config.controls
    ? (Math.min(data.rows, 3000) + data.validation + data.final) * measured.picture
    : 0;
  return passes * textSeconds(facts, config, data.final, input) + blank + pixels;
}
