/** A FitConfig from a settings file or options, with every problem in one error. */
import { ConfigError } from './checks';
import { isRecord, resolveFields } from './fields';
import { loraContradictions, refusedOptions } from './lora';
import { metricName, metricProblems } from './metric';
import type { FitConfig } from './settings';
import { hasLora, PRESETS, settings } from './settings';

/**
 * A checked FitConfig from parsed YAML or JSON. What is left out takes the preset's default.
 * @throws ConfigError one error that lists every unknown key (with near names) and every wrong value of `where`
 */
export function parseConfig(raw: unknown, where = 'config'): FitConfig {
  if (!isRecord(raw))
    throw new ConfigError(where, ['expected a mapping of settings, found ' + JSON.stringify(raw)]);
  const preset = PRESETS.find((name) => name === raw.preset) ?? 'lora';
  const { problems: refused, rest } = refusedOptions(raw.lora);
  const given = plainNames({ ...raw, lora: rest });
  const config = resolveFields(settings, given, { ...raw, preset }, where, refused);
  const problems = contradictions(config);
  if (problems.length) throw new ConfigError(where, problems);
  return config;
}

/** Normalises values: a metric starts with eval_, a folder does not end with a slash. */
function plainNames(given: Record<string, unknown>): Record<string, unknown> {
  const { metric_for_best_model: metric, output_dir: dir } = given;
  return {
    ...given,
    ...(typeof metric === 'string' && { metric_for_best_model: metricName(metric) }),
    ...(typeof dir === 'string' && { output_dir: dir.replace(/(?<=.)[/\\]+$/, '') }),
  };
}

export const NO_TOWER = 'acts on the vision tower, of which nothing trains here';

/** Problems of values that are valid alone but not together. */
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
  if (config.adapter !== undefined && !hasLora(config.preset))
    problems.push(
      `adapter: the preset ${config.preset} has no LoRA; choose lora or lora+qformer, or merge the adapter first`,
    );
  if (config.lora && !hasLora(config.preset))
    problems.push(
      `lora: the preset ${config.preset} has no LoRA; leave these settings out, or choose lora or lora+qformer`,
    );
  else if (config.lora) problems.push(...loraContradictions(config.lora));
  return problems;
}

/** May patterns select the vision tower? Only the model's tensor names can tell for certain. */
function mayTrainVision({ preset, also_train, lora }: FitConfig): boolean {
  const { target_modules, modules_to_save, bias } = lora ?? {};
  return preset === 'full' || Boolean(also_train ?? target_modules ?? modules_to_save) || bias === 'all';
}
