// Budget and learning rate of a run. Time budgets are for shared machines; runs with image budgets can be repeated
// exactly.
import type { Progress } from './learner';

/** Number of images or minutes of training. */
export type Budget = { images: number } | { minutes: number };

const WARMUP_STEPS = 200;
const FLOOR = 0.02;

/** Share of the budget that is used up, 0 … 1. */
export function fraction(budget: Budget, progress: Progress): number {
  const share =
    'images' in budget ? progress.images / budget.images : progress.seconds / (60 * budget.minutes);
  return Math.min(1, share);
}

export function spent(budget: Budget, progress: Progress): boolean {
  return fraction(budget, progress) >= 1;
}

/** Linear warm-up over 200 updates, then a cosine from the peak to 2 % of it at the end of the budget. */
export function learningRate(peak: number, budget: Budget, progress: Progress): number {
  const warmup = Math.min(1, (progress.step + 1) / WARMUP_STEPS);
  const cosine = 0.5 * (1 + Math.cos(Math.PI * fraction(budget, progress)));
  return peak * warmup * (FLOOR + (1 - FLOOR) * cosine);
}
