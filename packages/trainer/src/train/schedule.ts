/**
 * Learning-rate schedules, value for value those of transformers (`get_scheduler`: linear, cosine,
 * cosine_with_min_lr, constant, constant_with_warmup). As there, the warm-up starts at 0: the first update of a run with
 * warm-up moves only the optimizer's moments.
 */

export const SCHEDULERS = ['linear', 'cosine', 'constant', 'constant_with_warmup'] as const;
export type SchedulerType = (typeof SCHEDULERS)[number];

export interface ScheduleOptions {
  learning_rate: number;
  /** `constant` has no warm-up, as in transformers */
  lr_scheduler_type: SchedulerType;
  warmup_ratio: number;
  warmup_steps?: number;
  min_lr_ratio: number;
}

/** The learning rate of each update: `schedule(0)` belongs to the first one. */
export type Schedule = (step: number) => number;

/** Number of warm-up updates in `totalSteps`. */
export function warmupSteps(
  o: Pick<ScheduleOptions, 'warmup_steps' | 'warmup_ratio'>,
  totalSteps: number,
): number {
  return o.warmup_steps ?? Math.ceil(totalSteps * o.warmup_ratio);
}

/** The schedule of a run of `totalSteps` updates. */
export function makeSchedule(o: ScheduleOptions, totalSteps: number): Schedule {
  const warmup = warmupSteps(o, totalSteps);
  return (step) => {
    if (o.lr_scheduler_type === 'constant') return o.learning_rate;
    if (step < warmup) return o.learning_rate * (step / warmup);
    if (o.lr_scheduler_type === 'constant_with_warmup') return o.learning_rate;
    const progress = (step - warmup) / Math.max(1, totalSteps - warmup);
    const factor = Math.max(0, decay(o.lr_scheduler_type, progress));
    return o.learning_rate * (factor * (1 - o.min_lr_ratio) + o.min_lr_ratio);
  };
}

/** From 1 at progress 0 to 0 at progress 1. */
function decay(type: 'linear' | 'cosine', progress: number): number {
  return type === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress));
}
