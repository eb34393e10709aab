/** What a run does where its settings do not say. */
import { presetLora } from '@blip2/peft-lora';
import type { FitConfig, PresetName } from './settings';

/** LoRA and small heads learn at a higher rate than whole models: 1e-5 is the paper's rate for training the large parts. */
const LEARNING_RATE: Record<PresetName, number> = {
  lora: 2e-4,
  qformer: 5e-5,
  'qformer-projection': 5e-5,
  'lora+qformer': 1e-4,
  full: 1e-5,
};

const OPTIMIZER = {
  weight_decay: 0.01,
  adam_beta1: 0.9,
  adam_beta2: 0.999,
  adam_epsilon: 1e-8,
  max_grad_norm: 1,
  label_smoothing_factor: 0,
  lr_layer_decay: 1,
  lr_scheduler_type: 'cosine',
  warmup_ratio: 0.05,
  min_lr_ratio: 0,
} as const;

const COURSE = {
  num_train_epochs: 3,
  per_device_train_batch_size: 16,
  per_device_eval_batch_size: 16,
  gradient_accumulation_steps: 1,
  save_total_limit: 2,
  logging_steps: 10,
  report_to: 'tensorboard',
  num_samples: 4,
} as const;

const EVALUATION = {
  predict_with_generate: false,
  metric_for_best_model: 'eval_loss',
  early_stopping_threshold: 0,
  load_best_model_at_end: true,
  final_evaluation: 'test',
  generation: { max_new_tokens: 30, num_beams: 1 },
  controls: false,
} as const;

const MEMORY = {
  gradient_checkpointing: false,
  cache_features: true,
  cache_limit_mb: 20480,
  cache_memory_mb: 2048,
} as const;

/** Does a preset train adapters? */
export function hasLora(preset: PresetName): boolean {
  return presetLora(preset) !== undefined;
}

/** Every value a run needs except `model` and `data`, which are empty. */
export function defaultConfig(preset: PresetName = 'lora'): FitConfig {
  return structuredClone({
    ...{ model: '', data: '', skip_bad: false, task: 'caption', preset },
    ...(hasLora(preset) && { lora: { r: 16, lora_alpha: 32, lora_dropout: 0.05 } }),
    ...{ output_dir: `runs/${preset}`, seed: 0, backend: 'auto', precision: 'auto' },
    learning_rate: LEARNING_RATE[preset],
    ...OPTIMIZER,
    ...COURSE,
    ...EVALUATION,
    ...MEMORY,
  } satisfies FitConfig);
}
