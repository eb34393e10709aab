/** The metric that decides which weights are best: how it is called, which way is up, and whether a run will have it. */
import type { FitConfig } from './config';
import { CAPTION_FIGURES, DEGENERATION, questionTypes, typeName } from './evaluation/figures';
import { partNames } from './evaluation/score';
import type { FitData } from './fit-data';
import { ConfigError } from './config-schema';

type MetricSettings = Pick<FitConfig, 'predict_with_generate' | 'parts_pattern' | 'task'>;

/** The metrics that every evaluation of such a run gives, as they are called in metrics.jsonl. */
export function evaluationMetrics({ predict_with_generate, parts_pattern, task }: MetricSettings): string[] {
  if (!predict_with_generate) return ['eval_loss'];
  const scores = task === 'vqa' ? ['accuracy'] : Object.keys(CAPTION_FIGURES);
  const names = ['loss', 'exact', ...partNames(parts_pattern), ...scores, ...Object.keys(DEGENERATION)];
  return names.map((name) => `eval_${name}`);
}

/** As transformers reads it: `cider_d` means `eval_cider_d`. */
export const metricName = (name: string) => (name.startsWith('eval_') ? name : `eval_${name}`);

/** Is more of this metric better? Not of a loss, and not of a sign of degeneration. */
export function greaterIsBetter(name: string): boolean {
  return !name.endsWith('loss') && !(name.slice('eval_'.length) in DEGENERATION);
}

const OF_TYPE = /^eval_accuracy_./;

/** What is wrong with metric_for_best_model as far as settings tell; question types are known to the data only. */
export function metricProblems(config: FitConfig): string[] {
  const { metric_for_best_model: best, predict_with_generate, task } = config;
  const metrics = evaluationMetrics(config);
  if (metrics.includes(best) || (predict_with_generate && task === 'vqa' && OF_TYPE.test(best))) return [];
  const rest = predict_with_generate ? '' : '; the others need predict_with_generate: true';
  return [
    `metric_for_best_model: expected one of ${metrics.join(', ')}, found ${JSON.stringify(best)}${rest}`,
  ];
}

/** @throws ConfigError when the validation data cannot give the metric that the run is to be steered by */
export function checkMetric(config: FitConfig, { validation }: Pick<FitData, 'validation'>): void {
  const { metric_for_best_model: best, early_stopping_patience } = config;
  if (!validation) {
    if (early_stopping_patience === undefined && best === 'eval_loss') return;
    const setting = early_stopping_patience === undefined ? 'metric_for_best_model' : 'early_stopping_patience'; // prettier-ignore
    throw new ConfigError(setting, [
      'needs validation data; give eval_data, a validation split, or split_fractions',
    ]);
  }
  if (!OF_TYPE.test(best) || evaluationMetrics(config).includes(best)) return;
  const types = new Set(questionTypes(validation.examples).filter((type) => type !== undefined));
  const known = [...types].map((type) => `eval_${typeName(type)}`);
  if (known.includes(best)) return;
  const found = `found ${JSON.stringify(best)}`;
  throw new ConfigError('metric_for_best_model', [
    `expected one of ${['eval_accuracy', ...known].join(', ')}, ${found}`,
  ]);
}
