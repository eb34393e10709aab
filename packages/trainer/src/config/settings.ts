/**
 * What a fine-tuning run is told: one flat record, every value resolved. Names are those of transformers'
 * TrainingArguments and PEFT's LoraConfig wherever they have one.
 */
import type { Augmentation } from '@blip2/data-captions';
import { AUGMENTATIONS } from '@blip2/data-captions';
import type { SchedulerType } from '../schedule';
import { SCHEDULERS } from '../schedule';
import { metricName, metricProblems } from './metric';
import { defaultConfig, hasLora } from './defaults';
import type { LoraSettings } from './lora';
import { loraContradictions, loraSchema, refusedOptions } from './lora';
import type { ConfigSchema } from './checks';
import { NO_TOWER } from '../layer-decay';
import { boolean, checkRecord, choice, ConfigError, integer, number, regex, regexes, text } from './checks';

export const PRESETS = ['lora', 'qformer', 'qformer-projection', 'lora+qformer', 'full'] as const;
export type PresetName = (typeof PRESETS)[number];

export interface FitConfig {
  /** folder of the base checkpoint (HF layout) */
  model: string;
  /** a folder or file in any of the formats of data-captions, with or without splits */
  data: string;
  /** validation data; without it, `data`'s validation split, if it has one */
  eval_data?: string;
  /** data of the final table; without it, `data`'s test split, if it has one, else the validation data */
  test_data?: string;
  /** of `data` without splits: shares of the images for validation and test, drawn with `seed`; equal images stay together */
  split_fractions?: { validation?: number; test?: number };
  /** leave out rows that cannot be used and images that cannot be read, and name them, instead of ending with the list */
  skip_bad: boolean;
  /** what is learned: texts of images, or answers to questions about them */
  task: 'caption' | 'vqa';
  /** what trains */
  preset: PresetName;
  /** of presets with LoRA; the others have none. PEFT's names and meanings */
  lora?: LoraSettings;
  /** regular expressions found anywhere in a tensor's name: what they select trains whole, beside what the preset trains */
  also_train?: string[];
  /** folder of the run; it is made, and must be new or empty */
  output_dir: string;
  /** of everything random: initial adapters, order, dropout, subsets */
  seed: number;
  /** what computes; `doctor` shows what there is */
  backend: 'auto' | 'native' | 'tensorflow' | 'wasm' | 'cpu';
  /** of matrix products: bfloat16 rounds their operands and sums in float32; auto is bfloat16 where the processor multiplies it (native backend), else float32 */
  precision: 'auto' | 'float32' | 'bfloat16';

  /** highest learning rate; the default depends on the preset */
  learning_rate: number;
  /** AdamW's, on matrices only: not on biases and norms */
  weight_decay: number;
  /** AdamW's */
  adam_beta1: number;
  /** AdamW's */
  adam_beta2: number;
  /** AdamW's */
  adam_epsilon: number;
  /** gradients are scaled down to this global norm; 0 turns clipping off */
  max_grad_norm: number;
  /** share of the target that is spread over the vocabulary in the training loss; eval_loss is never smoothed */
  label_smoothing_factor: number;
  /** learning rate of each layer of the vision tower = that of the layer above × this (LAVIS); only where the tower trains */
  lr_layer_decay: number;
  /** all but `constant` begin with the warm-up */
  lr_scheduler_type: SchedulerType;
  /** share of all steps that the learning rate takes to rise; `warmup_steps`, when given, wins */
  warmup_ratio: number;
  /** the same in optimizer steps */
  warmup_steps?: number;
  /** the schedule ends at learning_rate × min_lr_ratio */
  min_lr_ratio: number;
  /** passes over the training data; parts of one are allowed */
  num_train_epochs: number;
  /** optimizer steps; wins over num_train_epochs */
  max_steps?: number;
  /** minutes of training after which the run ends as if it had come to its last step; the schedule is not shortened */
  max_minutes?: number;
  /** images per forward pass */
  per_device_train_batch_size: number;
  /** images at a time in evaluation, generation and caching */
  per_device_eval_batch_size: number;
  /** forward passes per optimizer step; the loss is the mean over all their tokens */
  gradient_accumulation_steps: number;

  /** optimizer steps between evaluations; without it, once per epoch */
  eval_steps?: number;
  /** optimizer steps between checkpoints; without it, once per epoch */
  save_steps?: number;
  /** checkpoints kept, the newest ones and the best one */
  save_total_limit: number;
  /** optimizer steps between rows of metrics.jsonl */
  logging_steps: number;
  /** what metrics are written to beside metrics.jsonl: event files in the run's tensorboard folder */
  report_to: 'tensorboard' | 'none';
  /** optimizer steps between captions of a few fixed images (training-samples.jsonl); never without it */
  sample_steps?: number;
  /** how many images these are: from the validation data, or without it from the training data */
  num_samples: number;
  /** also generate texts at each evaluation (slower), so that eval_exact, eval_cider_d, eval_accuracy… are on the curve */
  predict_with_generate: boolean;
  /** any metric of an evaluation, with or without eval_: eval_loss, and with predict_with_generate the others of docs/training.md */
  metric_for_best_model: string;
  /** without it: false for a loss and for signs of degeneration, else true */
  greater_is_better?: boolean;
  /** ends the run after so many evaluations in a row that are not better than the best one by early_stopping_threshold */
  early_stopping_patience?: number;
  /** what counts as better, in units of metric_for_best_model */
  early_stopping_threshold: number;
  /** save the weights of the best evaluation instead of the last ones */
  load_best_model_at_end: boolean;
  /** which examples the final table is made of: `validation` while tuning, `test` once */
  final_evaluation: 'test' | 'validation' | 'none';

  /** text before every caption, never part of the loss */
  prompt?: string;
  /** longer texts are cut to so many tokens; without it, a text that the model has no room for is an error */
  max_text_length?: number;
  /** what training sees of an image at each visit: a random crop, or as LAVIS one that is mirrored at half of them (not where texts say left or right); without it, the image as it is */
  image_augmentation?: Augmentation;
  /** number of training images, drawn with `seed` */
  train_limit?: number;
  /** number of images of each evaluation, drawn with `seed` */
  eval_limit?: number;
  /** how texts are generated, with transformers' names; one beam is greedy */
  generation: GenerationSettings;
  /** regular expression with named groups; each group becomes one accuracy */
  parts_pattern?: string;
  /** final table also shows the base before training, majority caption, nearest neighbour, probes */
  controls: boolean;
  /** recompute layers in the backward pass: less memory, more time */
  gradient_checkpointing: boolean;
  /** compute the outputs of frozen parts once per image, where that is exact: not with image_augmentation */
  cache_features: boolean;
  /** where these outputs are kept for later runs; without it, blip2/features in XDG_CACHE_HOME or ~/.cache */
  cache_dir?: string;
  /** disk that the features of one run may take, in MiB; larger ones are not kept, and the parts run at each step */
  cache_limit_mb: number;
  /** features up to so many MiB are held in memory; larger ones are read from disk, batch by batch */
  cache_memory_mb: number;
}

export interface GenerationSettings {
  max_new_tokens: number;
  num_beams: number;
  min_new_tokens?: number;
  repetition_penalty?: number;
  length_penalty?: number;
  no_repeat_ngram_size?: number;
}

const positive = integer({ min: 1 });
const share = number({ above: 0, below: 1 });
/** Every setting and what it may be. */
export const schema: ConfigSchema = {
  model: text,
  data: text,
  'eval_data?': text,
  'test_data?': text,
  'split_fractions?': { 'validation?': share, 'test?': share },
  skip_bad: boolean,
  task: choice('caption', 'vqa'),
  preset: choice(...PRESETS),
  'lora?': loraSchema,
  'also_train?': regexes,
  output_dir: text,
  seed: integer({ min: 0, max: 0xffffffff }),
  backend: choice('auto', 'native', 'tensorflow', 'wasm', 'cpu'),
  precision: choice('auto', 'float32', 'bfloat16'),
  learning_rate: number({ above: 0 }),
  weight_decay: number({ min: 0 }),
  adam_beta1: number({ min: 0, below: 1 }),
  adam_beta2: number({ min: 0, below: 1 }),
  adam_epsilon: number({ above: 0 }),
  max_grad_norm: number({ min: 0 }),
  label_smoothing_factor: number({ min: 0, below: 1 }),
  lr_layer_decay: number({ above: 0, max: 1 }),
  lr_scheduler_type: choice(...SCHEDULERS),
  warmup_ratio: number({ min: 0, max: 1 }),
  'warmup_steps?': integer({ min: 0 }),
  min_lr_ratio: number({ min: 0, max: 1 }),
  num_train_epochs: number({ above: 0 }),
  'max_steps?': positive,
  'max_minutes?': number({ above: 0 }),
  per_device_train_batch_size: positive,
  per_device_eval_batch_size: positive,
  gradient_accumulation_steps: positive,
  'eval_steps?': positive,
  'save_steps?': positive,
  save_total_limit: positive,
  logging_steps: positive,
  report_to: choice('tensorboard', 'none'),
  'sample_steps?': positive,
  num_samples: positive,
  predict_with_generate: boolean,
  metric_for_best_model: text,
  'greater_is_better?': boolean,
  'early_stopping_patience?': positive,
  early_stopping_threshold: number({ min: 0 }),
  load_best_model_at_end: boolean,
  final_evaluation: choice('test', 'validation', 'none'),
  'prompt?': text,
  'max_text_length?': positive,
  'image_augmentation?': choice(...AUGMENTATIONS),
  'train_limit?': positive,
  'eval_limit?': positive,
  generation: {
    max_new_tokens: positive,
    num_beams: positive,
    'min_new_tokens?': integer({ min: 0 }),
    'repetition_penalty?': number({ above: 0 }),
    'length_penalty?': number(),
    'no_repeat_ngram_size?': integer({ min: 0 }),
  },
  'parts_pattern?': regex,
  controls: boolean,
  gradient_checkpointing: boolean,
  cache_features: boolean,
  'cache_dir?': text,
  cache_limit_mb: number({ min: 0 }),
  cache_memory_mb: number({ min: 0 }),
};

/**
 * A checked FitConfig from parsed YAML or JSON. What is left out takes the preset's default.
 * @throws ConfigError one error that lists every unknown key (with near names) and every wrong value of `where`
 */
export function parseConfig(raw: unknown, where = 'config'): FitConfig {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw))
    throw new ConfigError(where, ['expected a mapping of settings, found ' + JSON.stringify(raw)]);
  const given = dropUndefined(raw as Record<string, unknown>);
  const preset = PRESETS.find((name) => name === given.preset) ?? 'lora';
  const { problems: refused, rest } = refusedOptions(isRecord(given.lora) ? given.lora : {});
  if (isRecord(given.lora)) given.lora = rest;
  const defaults = { ...defaultConfig(preset), cache_features: given.image_augmentation === undefined };
  const config = plainNames(overlay(defaults as unknown as Record<string, unknown>, given));
  const shown = hasLora(preset) ? config : { ...config, lora: undefined };
  const wrong = [...refused, ...checkRecord(schema, shown, '')];
  const problems = wrong.length ? wrong : contradictions(config as unknown as FitConfig);
  if (problems.length) throw new ConfigError(where, problems);
  return config as unknown as FitConfig;
}

/** What may be written in several ways, in one: a metric with eval_ before it, a folder without a slash behind it. */
function plainNames(config: Record<string, unknown>): Record<string, unknown> {
  const { metric_for_best_model: metric, output_dir: dir } = config;
  return {
    ...config,
    ...(typeof metric === 'string' && { metric_for_best_model: metricName(metric) }),
    ...(typeof dir === 'string' && { output_dir: dir.replace(/(?<=.)[/\\]+$/, '') }),
  };
}

/** Values that are legal alone and make no sense together. */
function contradictions(config: FitConfig): string[] {
  const { split_fractions: { validation = 0, test = 0 } = {} } = config;
  const problems = metricProblems(config);
  if (validation + test >= 1)
    problems.push(`split_fractions: expected a rest for training, found ${validation} + ${test}`);
  if (config.lr_layer_decay < 1 && !mayTrainVision(config)) problems.push(`lr_layer_decay: ${NO_TOWER}`);
  if (config.image_augmentation && config.cache_features)
    problems.push(
      'image_augmentation: shows other pixels at each visit, whose features cannot be cached; leave out cache_features: true',
    );
  if (config.lora && !hasLora(config.preset))
    problems.push(
      `lora: the preset ${config.preset} has no LoRA; leave these settings out, or choose lora or lora+qformer`,
    );
  else if (config.lora) problems.push(...loraContradictions(config.lora));
  return problems;
}

/** Whether it does, only the names in the model tell. */
function mayTrainVision({ preset, also_train, lora }: FitConfig): boolean {
  const { target_modules, modules_to_save, bias } = lora ?? {};
  return preset === 'full' || Boolean(also_train ?? target_modules ?? modules_to_save) || bias === 'all';
}

/** `given` over `defaults`, nested records merged key by key. */
function overlay(defaults: Record<string, unknown>, given: Record<string, unknown>): Record<string, unknown> {
  const out = { ...defaults };
  for (const [key, value] of Object.entries(given))
    out[key] = isRecord(value) && isRecord(out[key]) ? overlay(out[key], dropUndefined(value)) : value;
  return out;
}

/** YAML's `key:` (null) and a left-out option both mean "not given". */
function dropUndefined(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(record).filter(([, value]) => value !== undefined && value !== null),
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
