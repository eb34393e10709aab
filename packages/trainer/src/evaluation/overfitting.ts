/** Overfitting: from some step on the validation loss rises, while the training loss goes on falling. */
import type { MetricRow } from '../run/logs';

export interface Overfitting {
  /** the step with the lowest validation loss */
  step: number;
  /** validation loss there, and at the last evaluation */
  validation: { lowest: number; last: number };
  /** mean training loss before that step, and at the end */
  training: { then: number; last: number };
}

const FEWEST_EVALUATIONS = 3;
/** A smaller rise of the validation loss may be noise. */
const RISE = 1.1;

/** Undefined where the rows of metrics.jsonl show none. */
export function overfitting(metrics: readonly MetricRow[]): Overfitting | undefined {
  const evaluations = metrics.flatMap(({ step, eval_loss }) =>
    eval_loss === undefined ? [] : [{ step, loss: eval_loss }],
  );
  const last = evaluations.at(-1);
  if (!last || evaluations.length < FEWEST_EVALUATIONS) return undefined;
  const lowest = evaluations.reduce((best, one) => (one.loss < best.loss ? one : best));
  const before = endOf(metrics.filter(({ step }) => step <= lowest.step));
  const end = endOf(metrics.filter(({ step }) => step > lowest.step));
  if (before === undefined || end === undefined || end >= before || last.loss < RISE * lowest.loss)
    return undefined;
  return {
    step: lowest.step,
    validation: { lowest: lowest.loss, last: last.loss },
    training: { then: before, last: end },
  };
}

/** The mean training loss of the last tenth of these rows, since a single one is noisy. */
export function endOf(metrics: readonly MetricRow[]): number | undefined {
  const losses = metrics.flatMap(({ loss }) => loss ?? []);
  const end = losses.slice(-Math.ceil(losses.length / 10));
  return losses.length === 0 ? undefined : end.reduce((sum, loss) => sum + loss, 0) / end.length;
}
