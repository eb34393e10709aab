/**
 * Every setting of a fine-tuning run, once: what it may be, its default, whether it shapes the result, its option and its
 * documentation. FitConfig, its parser, docs/training.md, the JSON Schema, the options of `blip2 fit` and the identity of a
 * run follow from this table. Names are those of transformers' TrainingArguments and PEFT's LoraConfig wherever they have one.
 */
import type { DecodeOptions } from '@blip2/data-captions';
import { ALPHAS, AUGMENTATIONS, LAYOUT, ORIENTATIONS } from '@blip2/data-captions';
import { BACKENDS, PRECISIONS } from '@blip2/nn';
import type { PresetName } from '@blip2/peft-lora';
import { presetOf } from '@blip2/peft-lora';
import { SCHEDULERS } from '../train/schedule';
import type { JsonSchema } from './checks';
import { autoOrFalse, boolean, choice, integer, number, regex, regexes, text } from './checks';
import type { Resolved } from './fields';
import { defaultsOf, field, group, schemaOf, setting } from './fields';
import { loraFields } from './lora';

export const PRESETS: readonly PresetName[] = [
  'lora',
  'qformer',
  'qformer-projection',
  'lora+qformer',
  'full',
];

/** LoRA and small heads learn at a higher rate than whole models: 1e-5 is the paper's rate for training the large parts. */
const LEARNING_RATE: Record<PresetName, number> = {
  lora: 2e-4,
  qformer: 5e-5,
  'qformer-projection': 5e-5,
  'lora+qformer': 1e-4,
  full: 1e-5,
};

/** Does a preset train adapters? */
export function hasLora(preset: PresetName): boolean {
  return presetOf(preset).lora !== undefined;
}

const positive = integer({ min: 1 });
const share = number({ above: 0, below: 1 });

const splitFields = {
  validation: field(share, { doc: 'share for validation' }),
  test: field(share, { doc: 'share for the final test' }),
};

/** transformers' names */
const generationFields = {
  max_new_tokens: field(positive, {
    doc: 'most tokens per text; without it, 30, or as many as end at the last position of the model',
  }),
  num_beams: field(positive, { default: 1, doc: '1 is greedy' }),
  min_new_tokens: field(integer({ min: 0 }), { doc: 'fewest tokens per text' }),
  repetition_penalty: field(number({ above: 0 }), {
    doc: 'above 1, tokens that are there already are less likely',
  }),
  length_penalty: field(number(), { doc: 'with beams: above 0 favours long texts' }),
  no_repeat_ngram_size: field(integer({ min: 0 }), { doc: 'no so many tokens in a row occur twice' }),
};

export const settings = {
  model: setting(text, {
    default: '',
    shapes: false, // the identity has a fingerprint of its files
    flag: '--model <dir>',
    doc: 'folder of the base checkpoint (Hugging Face layout)',
  }),
  adapter: setting(text, {
    shapes: false, // the identity has a fingerprint of its files
    flag: '--adapter <dir>',
    doc: 'PEFT adapter to continue: its weights are the initial ones, its LoRA settings those of the run',
  }),
  data: setting(text, {
    default: '',
    shapes: false, // the identity has a fingerprint of the examples
    flag: '--data <path>',
    doc: 'a folder or file in any format that `blip2 data check` reads, with or without splits',
  }),
  eval_data: setting(text, {
    shapes: false,
    doc: "validation data; without it, `data`'s validation split, if it has one",
  }),
  test_data: setting(text, {
    shapes: false,
    doc: "data of the final table; without it, `data`'s test split, if it has one, else the validation data",
  }),
  split_fractions: setting(group(splitFields), {
    shapes: false,
    flag: '--split-fractions <list>',
    help: 'shares of the images for validation and test, such as validation=0.1,test=0.1',
    doc: 'of `data` without splits: shares of the images for validation and test, drawn with `seed`; equal images stay together',
  }),
  image_column: setting(text, {
    shapes: true,
    flag: '--image-column <name>',
    doc: LAYOUT.image_column,
  }),
  caption_column: setting(text, {
    shapes: true,
    flag: '--caption-column <name>',
    doc: LAYOUT.caption_column,
  }),
  question_column: setting(text, {
    shapes: true,
    flag: '--question-column <name>',
    doc: LAYOUT.question_column,
  }),
  answer_column: setting(text, {
    shapes: true,
    flag: '--answer-column <name>',
    doc: LAYOUT.answer_column,
  }),
  image_folder: setting(text, {
    shapes: false, // the identity has a fingerprint of the examples
    flag: '--image-folder <dir>',
    doc: LAYOUT.image_folder,
  }),
  skip_bad: setting(boolean, {
    default: false,
    shapes: false,
    flag: '--skip-bad',
    doc: 'leave out rows that cannot be used (their texts or their image), and name them; without it, they are an error',
  }),
  task: setting(choice('caption', 'vqa'), {
    default: 'caption',
    shapes: true,
    flag: '--task <name>',
    doc: 'what is learned: texts of images, or answers to questions about them',
  }),
  preset: setting(choice(...PRESETS), {
    default: 'lora',
    shapes: true,
    flag: '--preset <name>',
    doc: 'what trains',
  }),
  lora: setting(group(loraFields), {
    default: ({ preset }) => (hasLora(preset) ? defaultsOf(loraFields, { preset }) : undefined),
    shapes: true,
    doc: "of presets with LoRA; the others have none. PEFT's names and meanings",
  }),
  also_train: setting(regexes, {
    shapes: true,
    doc: "regular expressions found anywhere in a tensor's name: what they select trains whole, beside what the preset trains",
  }),
  output_dir: setting(text, {
    default: ({ preset }) => `runs/${preset}`,
    shapes: false,
    flag: '--output <dir>',
    doc: 'folder of the run; it is made, and must be new or empty',
  }),
  seed: setting(integer({ min: 0, max: 0xffffffff }), {
    default: 0,
    shapes: true,
    doc: 'of everything random: initial adapters, order, dropout, subsets',
  }),
  backend: setting(choice('auto', ...BACKENDS), {
    default: 'auto',
    shapes: false, // another backend agrees up to rounding; resume reports the difference
    flag: '--backend <name>',
    doc: 'where to compute; `blip2 doctor` shows what there is',
  }),
  precision: setting(choice('auto', ...PRECISIONS), {
    default: 'auto',
    shapes: true,
    flag: '--precision <name>',
    doc: 'of matmuls: bfloat16 rounds their operands and sums in float32; int8 rounds frozen weights to 8 bits, in half of the memory of bfloat16, and int4 those of the text model to 4 bits: native also rounds activations to 8 bits, webgpu does not; auto is bfloat16 where the processor (native) or the GPU (webgpu) is faster with it, else float32',
  }),

  learning_rate: setting(number({ above: 0 }), {
    default: ({ preset }) => LEARNING_RATE[preset],
    shapes: true,
    flag: '--lr <x>',
    aka: ['lr', 'learning_rates', 'rate'],
    doc: 'highest learning rate; the default depends on the preset',
  }),
  weight_decay: setting(number({ min: 0 }), {
    default: 0.01,
    shapes: true,
    aka: ['wd'],
    doc: "AdamW's, on matrices only: not on biases and norms",
  }),
  adam_beta1: setting(number({ min: 0, below: 1 }), { default: 0.9, shapes: true, doc: "AdamW's" }),
  adam_beta2: setting(number({ min: 0, below: 1 }), { default: 0.999, shapes: true, doc: "AdamW's" }),
  adam_epsilon: setting(number({ above: 0 }), { default: 1e-8, shapes: true, doc: "AdamW's" }),
  max_grad_norm: setting(number({ min: 0 }), {
    default: 1,
    shapes: true,
    doc: 'gradients are scaled down to this global norm; 0 turns clipping off',
  }),
  label_smoothing_factor: setting(number({ min: 0, below: 1 }), {
    default: 0,
    shapes: true,
    doc: 'share of the target that is spread over the vocabulary in the training loss; eval_loss is never smoothed',
  }),
  lr_layer_decay: setting(number({ above: 0, max: 1 }), {
    default: 1,
    shapes: true,
    doc: 'learning rate of each layer of the vision tower = that of the layer above × this (LAVIS); only where the tower trains',
  }),
  lr_scheduler_type: setting(choice(...SCHEDULERS), {
    default: 'cosine',
    shapes: true,
    aka: ['scheduler', 'lr_scheduler', 'schedule'],
    doc: 'all but `constant` begin with the warm-up',
  }),
  warmup_ratio: setting(number({ min: 0, max: 1 }), {
    default: 0.05,
    shapes: true,
    aka: ['warmup'],
    doc: 'share of all steps that the learning rate takes to rise; `warmup_steps`, when given, wins',
  }),
  warmup_steps: setting(integer({ min: 0 }), { shapes: true, doc: 'the same in optimizer steps' }),
  min_lr_ratio: setting(number({ min: 0, max: 1 }), {
    default: 0,
    shapes: true,
    doc: 'the schedule ends at learning_rate × min_lr_ratio',
  }),
  num_train_epochs: setting(number({ above: 0 }), {
    default: 3,
    shapes: true,
    flag: '--epochs <n>',
    aka: ['epochs', 'epoch', 'num_epochs', 'n_epochs', 'max_epochs'],
    doc: 'passes over the training data; parts of one are allowed',
  }),
  max_steps: setting(positive, {
    shapes: true,
    flag: '--max-steps <n>',
    aka: ['steps', 'iterations', 'max_iters'],
    doc: 'optimizer steps; wins over num_train_epochs',
  }),
  max_minutes: setting(number({ above: 0 }), {
    shapes: false,
    flag: '--max-minutes <n>',
    doc: 'minutes of training after which the run ends as if it had come to its last step; the schedule is not shortened',
  }),
  per_device_train_batch_size: setting(positive, {
    default: 16,
    shapes: true,
    flag: '--batch-size <n>',
    aka: ['batch_size', 'batch', 'bs', 'train_batch_size'],
    doc: 'images per forward pass',
  }),
  per_device_eval_batch_size: setting(positive, {
    default: 16,
    shapes: false,
    doc: 'images at a time in evaluation, generation and caching',
  }),
  group_captions: setting(autoOrFalse, {
    default: 'auto',
    shapes: false, // the identity has it for data in which it changes the order
    doc: 'rows of one picture (captions, or questions about it) follow each other, so that those in one batch share what is computed of the picture; `false` shuffles all rows alike. Without several rows of a picture it changes nothing',
  }),
  caption_lists: setting(choice('one', 'all'), {
    default: 'one',
    shapes: false, // the identity has a fingerprint of the examples
    doc: 'examples with a list of captions: each epoch draws `one`, as diffusers does, or learns `all`, a row for each, as LAVIS does with COCO',
  }),
  gradient_accumulation_steps: setting(positive, {
    default: 1,
    shapes: true,
    aka: ['grad_accum', 'accumulation'],
    doc: 'forward passes per optimizer step; the loss is the mean over all their tokens',
  }),

  eval_steps: setting(positive, {
    shapes: false,
    doc: 'optimizer steps between evaluations; without it, once per epoch',
  }),
  save_steps: setting(positive, {
    shapes: false,
    doc: 'optimizer steps between checkpoints; without it, once per epoch',
  }),
  save_total_limit: setting(positive, {
    default: 2,
    shapes: false,
    doc: 'checkpoints kept, the newest ones and the best one',
  }),
  logging_steps: setting(positive, {
    shapes: false,
    doc: 'optimizer steps between rows of metrics.jsonl; without it, a hundredth of the run, at most 50',
  }),
  report_to: setting(choice('tensorboard', 'none'), {
    default: 'tensorboard',
    shapes: false,
    doc: "what metrics are written to beside metrics.jsonl: event files in the run's tensorboard folder",
  }),
  sample_steps: setting(positive, {
    shapes: false,
    doc: 'optimizer steps between captions of a few fixed images, also before the first and after the last step (training-samples.jsonl); none without it',
  }),
  num_samples: setting(positive, {
    default: 4,
    shapes: false,
    doc: 'how many images these are: from the validation data, or without it from the training data',
  }),
  predict_with_generate: setting(boolean, {
    default: false,
    shapes: false,
    doc: 'also generate texts at each evaluation (slower), so that eval_exact, eval_cider_d, eval_accuracy… are on the curve',
  }),
  metric_for_best_model: setting(text, {
    default: 'eval_loss',
    shapes: true,
    doc: 'any metric of an evaluation, with or without eval_: eval_loss, with predict_with_generate the others of docs/training.md, and of a model for retrieval eval_r_mean and the other recalls of docs/retrieval.md',
  }),
  greater_is_better: setting(boolean, {
    shapes: true,
    doc: 'without it: false for a loss and for signs of degeneration, else true',
  }),
  early_stopping_patience: setting(positive, {
    shapes: false,
    doc: 'ends the run after so many evaluations in a row that are not better than the best one by early_stopping_threshold',
  }),
  early_stopping_threshold: setting(number({ min: 0 }), {
    default: 0,
    shapes: false,
    doc: 'what counts as better, in units of metric_for_best_model',
  }),
  load_best_model_at_end: setting(boolean, {
    default: true,
    shapes: false,
    doc: 'save the weights of the best evaluation instead of the last ones',
  }),
  final_evaluation: setting(choice('test', 'validation', 'none'), {
    default: 'test',
    shapes: false,
    doc: 'which examples the final table is made of: `validation` while tuning, `test` once',
  }),

  prompt: setting(text, { shapes: true, doc: 'text before every caption, never part of the loss' }),
  max_text_length: setting(positive, {
    shapes: true,
    doc: 'longer texts are cut to so many tokens; without it, a text that the model has no room for is an error',
  }),
  image_augmentation: setting(choice(...AUGMENTATIONS), {
    shapes: true,
    doc: 'what training sees of an image at each visit: a random crop, or as LAVIS one that is mirrored at half of them (not where texts say left or right); without it, the image as it is',
  }),
  image_orientation: setting(choice(...ORIENTATIONS), {
    shapes: true,
    flag: '--image-orientation <name>',
    doc: "photos with an EXIF orientation: `exif` turns them upright, as transformers' load_image and datasets do; `ignore` leaves them as PIL's Image.open does; without it, `exif`",
  }),
  alpha: setting(choice(...ALPHAS), {
    shapes: true,
    flag: '--alpha <name>',
    doc: "transparent images: `white` blends them onto white, as transformers 5.23 does; `drop` ignores the transparency, as PIL's convert('RGB') and transformers up to 5.17 do; without it, `white`",
  }),
  train_limit: setting(positive, { shapes: true, doc: 'number of training images, drawn with `seed`' }),
  eval_limit: setting(positive, {
    shapes: false,
    doc: 'number of images, or of questions about images, of each evaluation, drawn with `seed`',
  }),
  generation: setting(group(generationFields), {
    default: { num_beams: 1 },
    shapes: false,
    doc: "how texts are generated, with transformers' names; one beam is greedy; without max_new_tokens 30, or as many as the model has room for",
  }),
  parts_pattern: setting(regex, {
    shapes: false,
    doc: 'regular expression with named groups; each group becomes one accuracy',
  }),
  controls: setting(boolean, {
    default: false,
    shapes: false,
    doc: 'final table also shows the base before training, majority caption, nearest neighbour, probes',
  }),
  gradient_checkpointing: setting(boolean, {
    default: false,
    shapes: false,
    doc: 'recompute layers in the backward pass: less memory, more time',
  }),
  cache_features: setting(boolean, {
    default: ({ image_augmentation }) => (image_augmentation ?? undefined) === undefined,
    shapes: false,
    flag: '--no-cache',
    help: 'compute frozen parts at every step instead of keeping their outputs on disk',
    doc: 'compute the outputs of frozen parts once per image, where that is exact: not with image_augmentation',
  }),
  cache_dir: setting(text, {
    shapes: false,
    doc: 'where these outputs are kept for later runs; without it, blip2/features in XDG_CACHE_HOME or ~/.cache',
  }),
  cache_limit_mb: setting(number({ min: 0 }), {
    default: 20480,
    shapes: false,
    doc: 'disk that the features of one run may take, in MiB; larger ones are not kept, and the parts run at each step',
  }),
  cache_memory_mb: setting(number({ min: 0 }), {
    default: 2048,
    shapes: false,
    doc: 'features up to so many MiB are held in memory; larger ones are read from disk, batch by batch',
  }),
};

const SHAPING = new Set(Object.entries(settings).flatMap(([key, { shapes }]) => (shapes ? [key] : [])));

/** The settings of a fine-tuning run: one record with every value resolved, made by `parseConfig`. */
export type FitConfig = Resolved<typeof settings>;

/** Every value a run needs except `model` and `data`, which are empty. */
export function defaultConfig(preset: PresetName = 'lora'): FitConfig {
  return { ...defaultsOf(settings, { preset }), preset };
}

/** The settings that influence the result, without those that are not set. A resumed run must have the same. */
export function shapingSettings(config: FitConfig): Record<string, unknown> {
  const entries: [string, unknown][] = Object.entries(config);
  return Object.fromEntries(entries.filter(([key, value]) => SHAPING.has(key) && value !== undefined));
}

/** How a run decodes images. */
export function decodingOf({ alpha, image_orientation }: FitConfig): DecodeOptions {
  return { alpha, image_orientation };
}

/** JSON Schema (draft 2020-12) of a settings file, for editors. */
export const fitSchema: JsonSchema = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'Settings of blip2 fit',
  ...schemaOf(settings),
};
