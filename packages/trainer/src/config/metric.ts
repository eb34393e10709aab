/** The metric that decides which weights are best: its names, whether more is better, and whether settings allow it. */
import { CAPTION_FIGURES, DEGENERATION } from '../evaluation/figures';
import { partNames } from '../evaluation/score';
import type { FitConfig } from './settings';

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

/** Accuracy of one type of question. */
export const OF_TYPE = /^eval_accuracy_./;

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
