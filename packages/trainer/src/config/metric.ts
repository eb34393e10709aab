/** The metric that decides which weights are best: its names, whether more is better, and whether settings allow it. */
import { CAPTION_FIGURES, DEGENERATION } from '../evaluation/figures';
import { partNames } from '../evaluation/score';
import type { FitConfig } from './settings';

type MetricSettings = Pick<FitConfig, 'predict_with_generate' | 'parts_pattern' | 'task'>;

/** The metrics of every evaluation of such a run, as named in metrics.jsonl. */
export function evaluationMetrics({ predict_with_generate, parts_pattern, task }: MetricSettings): string[] {
  if (!predict_with_generate) return ['eval_loss'];
  const scores = task === 'vqa' ? ['accuracy'] : Object.keys(CAPTION_FIGURES);
  const names = ['loss', 'exact', ...partNames(parts_pattern), ...scores, ...Object.keys(DEGENERATION)];
  return names.map((name) => `eval_${name}`);
}

/** Of every evaluation of a model for retrieval, beside eval_loss. */
export const RECALL_METRICS: readonly string[] = [
  ...['eval_r_mean', 'eval_txt_r1', 'eval_txt_r5', 'eval_txt_r10'],
  ...['eval_img_r1', 'eval_img_r5', 'eval_img_r10'],
];

/** Adds `eval_` if it is missing, as transformers does: `cider_d` means `eval_cider_d`. */
export const metricName = (name: string) => (name.startsWith('eval_') ? name : `eval_${name}`);

/** Is a higher value better? Not for losses and measures of degeneration. */
export function greaterIsBetter(name: string): boolean {
  return !name.endsWith('loss') && !(name.slice('eval_'.length) in DEGENERATION);
}

/** The metric names of accuracy by question type. */
export const OF_TYPE = /^eval_accuracy_./;

/** Problems of metric_for_best_model that the settings alone reveal; question types depend on the data. */
export function metricProblems(config: FitConfig): string[] {
  const { metric_for_best_model: best, predict_with_generate, task } = config;
  const metrics = evaluationMetrics(config);
  if (RECALL_METRICS.includes(best)) return []; // the kind of model is not known yet
  if (metrics.includes(best) || (predict_with_generate && task === 'vqa' && OF_TYPE.test(best))) return [];
  const rest = predict_with_generate ? '' : '; the others need predict_with_generate: true';
  return [
    `metric_for_best_model: expected one of ${metrics.join(', ')}, found ${JSON.stringify(best)}${rest}`,
  ];
}
