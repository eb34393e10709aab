/** Whether the data of a run supports the metric that selects the best weights. */
import type { Example } from '@blip2/data-captions';
import type { FitConfig } from '../config';
import { ConfigError, evaluationMetrics, OF_TYPE } from '../config';
import { questionTypes, typeName } from './figures';

/** @throws ConfigError when the validation data does not support the metric */
export function checkMetric(config: FitConfig, validation: Example[] | undefined): void {
  const { metric_for_best_model: best, early_stopping_patience } = config;
  if (!validation) {
    if (early_stopping_patience === undefined && best === 'eval_loss') return;
    const setting =
      early_stopping_patience === undefined ? 'metric_for_best_model' : 'early_stopping_patience';
    throw new ConfigError(setting, [
      'needs validation data; give eval_data, a validation split, or split_fractions',
    ]);
  }
  if (!OF_TYPE.test(best) || evaluationMetrics(config).includes(best)) return;
  const types = new Set(questionTypes(validation).filter((type) => type !== undefined));
  const known = [...types].map((type) => `eval_${typeName(type)}`);
  if (known.includes(best)) return;
  const found = `found ${JSON.stringify(best)}`;
  throw new ConfigError('metric_for_best_model', [
    `expected one of ${['eval_accuracy', ...known].join(', ')}, ${found}`,
  ]);
}
