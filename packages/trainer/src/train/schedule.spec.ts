import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ScheduleOptions } from './schedule';
import { makeSchedule, warmupSteps } from './schedule';

interface Case extends ScheduleOptions {
  total: number;
  warmup: number;
  rates: number[];
}
const fixture = new URL('../../fixtures/trainer.json', import.meta.url);
const { schedules } = JSON.parse(readFileSync(fixture, 'utf8')) as { schedules: Case[] };

describe('learning-rate schedules', () => {
  it.each(
    schedules.map((c) => [`${c.lr_scheduler_type}, ${c.total} steps, warm-up ${c.warmup_ratio}`, c] as const),
  )('equal transformers: %s', (_, c) => {
    expect(warmupSteps(c, c.total)).toBe(c.warmup);
    const schedule = makeSchedule(c, c.total);
    c.rates.forEach((rate, step) => expect(schedule(step)).toBeCloseTo(rate, 12));
  });

  it('start a warm-up at 0, so that the first update moves only the moments', () => {
    const o = { learning_rate: 1, lr_scheduler_type: 'linear', warmup_ratio: 0.5, min_lr_ratio: 0 } as const;
    expect(makeSchedule(o, 4)(0)).toBe(0);
    expect(makeSchedule({ ...o, warmup_ratio: 0 }, 4)(0)).toBe(1);
  });

  it('let warmup_steps win over warmup_ratio', () => {
    expect(warmupSteps({ warmup_ratio: 0.5, warmup_steps: 3 }, 100)).toBe(3);
    expect(warmupSteps({ warmup_ratio: 0.5, warmup_steps: 0 }, 100)).toBe(0);
  });
});
