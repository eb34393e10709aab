/** Time of a run from measured kernels. */
import { countBatches } from '@blip2/data-captions';
import type { FitConfig } from '../config';
import { trainOptions } from '../model/parts';
import type { CachePlan } from './disk';
import type { PlanFacts, StepCost } from './facts';

/** Seconds. */
export interface TimeParts {
  /** computing the features of all pictures, once */
  features: number;
  /** all optimizer steps, and all evaluations during training */
  training: number;
  evaluation: number;
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
  const { totalSteps, perEpoch, eval_steps } = trainOptions(config, data.rows, 1);
  const input = inputSeconds(facts, cache);
  const seconds = stepSeconds(
    cost,
    config,
    data.rows / countBatches(data.rows, { batch_size: config.per_device_train_batch_size }),
    input,
  );
  const evaluations = data.validation > 0 ? Math.ceil(totalSteps / eval_steps) : 0;
  const generated = config.predict_with_generate ? textSeconds(facts, config, data.validation, input) : 0;
  const loss = data.validation * (cost.forward / cost.batch + input);
  const features = cache.kept === 'none' ? 0 : data.pictures * stageSeconds(facts, cache);
  const training = totalSteps * seconds;
  const evaluation = evaluations * (loss + generated);
  const final = finalSeconds(facts, config, input);
  const total = features + training + evaluation + final;
  return { features, training, evaluation, final, epoch: perEpoch * seconds, total };
}

/** An optimizer step over micro-batches of `rows` pictures. */
function stepSeconds(cost: StepCost, config: FitConfig, rows: number, input: number): number {
  const micro = rows * (cost.compute / cost.batch + input);
  return config.gradient_accumulation_steps * micro + cost.update;
}

/** Reading a picture and running it through the parts before `stage`. */
function stageSeconds({ measured }: PlanFacts, { stage }: CachePlan): number {
  return measured.picture + (stage ? (measured.stages[stage] ?? 0) : 0);
}

/** What each visit of a picture costs before the parts that train: nothing with a cache. */
function inputSeconds(facts: PlanFacts, cache: CachePlan): number {
  return cache.kept === 'none' ? stageSeconds(facts, cache) : 0;
}

function textSeconds({ measured, data }: PlanFacts, config: FitConfig, rows: number, input: number): number {
  const cost = measured.generation;
  if (!cost) return 0;
  const batches = Math.ceil(rows / config.per_device_eval_batch_size);
  const tokens = Math.min(data.generated, config.generation.max_new_tokens ?? Infinity);
  const prompts = (cost.prompt / cost.rows) * rows;
  return prompts + batches * config.generation.num_beams * cost.token * tokens + rows * input;
}

/** Fine-tuned and with shuffled pictures; with controls also before training and from raw pixels. */
function finalSeconds(facts: PlanFacts, config: FitConfig, input: number): number {
  const { data, measured } = facts;
  if (config.final_evaluation === 'none' || data.final === 0) return 0;
  const passes = config.controls ? 3 : 2;
  const pixels = config.controls
    ? (Math.min(data.rows, 3000) + data.validation + data.final) * measured.picture
    : 0;
  return passes * textSeconds(facts, config, data.final, input) + pixels;
}
