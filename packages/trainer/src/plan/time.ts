/** Time of a run from measured kernels. */
import { countBatches } from '@blip2/data-captions';
import { blip2Weights, isBelow, stagesOf } from '@blip2/blip2';
import type { Blip2Config } from '@blip2/blip2';
import type { FitConfig } from '../config';
import { trainOptions } from '../model/parts';
import { resultBytes } from './disk';
import type { CachePlan } from './disk';
import type { PlanFacts, StepCost } from './facts';
import { runName, trainedBy } from './layers';
import { roundingSeconds } from './rounding';

/** Seconds. */
export interface TimeParts {
  /** reading the data, and reading and checking the model's files, for the run and for the key of the feature cache */
  loading: number;
  /** computing the features of all pictures, once */
  features: number;
  /** choosing how weights are rounded to 8 or 4 bits, and rounding them, once */
  rounding: number;
  /** all optimizer steps */
  training: number;
  /** all evaluations and sample texts during training */
  evaluation: number;
  /** writing and checking checkpoints and the result */
  saving: number;
  /** texts of the final table and its controls */
  final: number;
  /** one epoch of training, without the features and the rounding */
  epoch: number;
  total: number;
}

/** A run on several nodes, see nodes.ts. Seconds of a step that exchange gradients, and in which weights are read from a file server. */
export interface Together {
  nodes: number;
  exchange: number;
  /** how much longer the slowest node takes than the mean */
  slowest: number;
  weights: number;
}

const ALONE: Together = { nodes: 1, exchange: 0, slowest: 1, weights: 0 };

export function timeOf(
  facts: PlanFacts,
  config: FitConfig,
  cache: CachePlan,
  { nodes, exchange, slowest, weights }: Together = ALONE,
): TimeParts | undefined {
  const cost = stepCostOf(facts, config, cache);
  if (!cost) return undefined;
  const { data } = facts;
  const { totalSteps, perEpoch, eval_steps, save_steps } = trainOptions(config, data.rows, nodes);
  const batches = countBatches(data.rows, { batch_size: config.per_device_train_batch_size * nodes });
  const input = data.pictures_per_row * inputSeconds(facts, cache);
  const step = slowest * stepSeconds(cost, config, data.rows / batches / nodes, input) + exchange;
  const parts = {
    loading: facts.measured.starting + loadSeconds(facts, cache) + weights,
    features: (slowest * cacheSeconds(facts, cache, cost)) / nodes,
    rounding: roundingSeconds(facts, trainedBy(facts.model.config, config), cost),
    training: totalSteps * step,
    evaluation:
      (slowest * evaluationSeconds(facts, config, cache, { steps: totalSteps, every: eval_steps })) / nodes,
    saving: savingSeconds(facts, config, totalSteps, save_steps),
    final: finalSeconds(facts, config, cache, nodes),
  };
  const total = Object.values(parts).reduce((sum, part) => sum + part, 0);
  return { ...parts, epoch: perEpoch * step, total };
}

/** The cost of a step; the frozen layers are part of it unless their results are kept. */
function stepCostOf(facts: PlanFacts, config: FitConfig, { hidden }: CachePlan): StepCost | undefined {
  const cost = facts.measured.steps[runName(facts.model.config, config)];
  if (!cost || !hidden || hidden.kept !== 'none') return cost;
  return { ...cost, compute: cost.compute + cost.below, forward: cost.forward + cost.below };
}

/** Computing the features of all pictures, and the hidden states of all rows, once. */
function cacheSeconds(facts: PlanFacts, cache: CachePlan, cost: StepCost): number {
  const { pictures, taught } = facts.data;
  const features = cache.kept === 'none' ? 0 : pictures * pictureSeconds(facts, cache);
  const states = cache.hidden && cache.hidden.kept !== 'none' ? taught.texts * (cost.below / cost.batch) : 0;
  return features + states;
}

/** An optimizer step over micro-batches of `rows` rows. @param input seconds for each row */
function stepSeconds(cost: StepCost, config: FitConfig, rows: number, input: number): number {
  const micro = rows * (cost.compute / cost.batch + input);
  return config.gradient_accumulation_steps * micro + cost.update;
}

/** Checksums of all files, and for the keys of the caches those of the tensors before them, and the features of one picture. */
function loadSeconds({ model, measured }: PlanFacts, { kept, stage, hidden }: CachePlan): number {
  const all = model.bytes * measured.byte;
  if (kept === 'none' || kept === 'memory' || !stage) return all;
  const { parts } = stagesOf(model.config).find(({ name }) => name === stage)!;
  const before = shareOf(model.config, (name) => parts.includes(name.split('.')[0]));
  const below = hidden?.kept.includes('disk')
    ? shareOf(model.config, (name) => isBelow(model.config, name, hidden.depth))
    : 0;
  return all * (1 + before + below) + (measured.stages[stage]?.seconds ?? 0);
}

/** Of the numbers of a model, by the names of its tensors. */
function shareOf(config: Blip2Config, counts: (name: string) => boolean): number {
  const sizes = blip2Weights(config).map(
    ([name, shape]) => [name, shape.reduce((a, b) => a * b, 1)] as const,
  );
  const total = (some: typeof sizes) => some.reduce((sum, [, size]) => sum + size, 0);
  return total(sizes.filter(([name]) => counts(name))) / total(sizes);
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
function evaluationSeconds(
  facts: PlanFacts,
  config: FitConfig,
  cache: CachePlan,
  { steps, every }: { steps: number; every: number },
): number {
  const { data } = facts;
  const { sample_steps, num_samples, predict_with_generate } = config;
  const cost = stepCostOf(facts, config, cache)!;
  const input = inputSeconds(facts, cache);
  const loss = (data.losses * cost.forward) / cost.batch + data.validation * input;
  const texts = predict_with_generate ? textSeconds(facts, config, data.validation, input) : 0;
  const evaluations = data.validation > 0 ? Math.ceil(steps / every) : 0;
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
function finalSeconds(facts: PlanFacts, config: FitConfig, cache: CachePlan, nodes: number): number {
  const { data, measured } = facts;
  if (config.final_evaluation === 'none' || data.final === 0) return 0;
  const input = inputSeconds(facts, cache);
  const passes = config.controls ? 3 : 2;
  const blank = textSeconds(facts, config, data.prompts, pictureSeconds(facts, cache));
  const pixels = config.controls
    ? (Math.min(data.rows, 3000) + data.validation + data.final) * measured.picture
    : 0;
  return (passes * textSeconds(facts, config, data.final, input) + blank) / nodes + pixels;
}

/** Reading a picture, running it through the frozen parts, and generating its text. */
export function captionSeconds(facts: PlanFacts, config: FitConfig): number {
  const { measured } = facts;
  const stage = measured.stages.query_embeds ?? measured.stages.image_features;
  const batch = config.per_device_eval_batch_size;
  return measured.picture + (stage?.seconds ?? 0) + textSeconds(facts, config, batch, 0) / batch;
}
