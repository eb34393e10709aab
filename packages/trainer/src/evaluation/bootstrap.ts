/** Intervals of means by the bootstrap over pictures. */
import { fold, rngKey, uniform } from '@blip2/nn';

export interface Interval {
  mean: number;
  /** the middle 95 % of the resampled means */
  low: number;
  high: number;
}

const RESAMPLES = 2000;

/**
 * The mean of `values` and its 95 % percentile interval: the values are drawn with replacement 2,000 times (Efron and
 * Tibshirani, An Introduction to the Bootstrap, ch. 13). Equal values have an interval without width.
 */
export function bootstrap(values: readonly number[], seed = 0): Interval {
  const n = values.length;
  if (n === 0) return { mean: NaN, low: NaN, high: NaN };
  const means = new Float64Array(RESAMPLES);
  const key = fold(rngKey(seed), 'bootstrap');
  for (let round = 0; round < RESAMPLES; round++) {
    let sum = 0;
    for (const u of uniform(fold(key, round), n)) sum += values[Math.min(n - 1, Math.floor(u * n))];
    means[round] = sum / n;
  }
  means.sort();
  const at = (share: number) => means[Math.round(share * (RESAMPLES - 1))];
  return { mean: values.reduce((sum, value) => sum + value, 0) / n, low: at(0.025), high: at(0.975) };
}
