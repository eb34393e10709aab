/** One cell: a run of `fit`, with one evaluation after its last step. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cpuUsage } from 'node:process';
import { fit, parseConfig } from '@blip2/trainer';
import type { FitConfig } from '@blip2/trainer';
import { DATA } from './data';
import type { Cell, Result } from './grid';
import { batchOf, stepsOf } from './grid';
import { VARIANTS } from './variants';

const MODEL = 'models/blip2-emoji-mini';
/** Pictures of the test, drawn with the seed. */
const EVALUATED = 200;

/** @param work a folder for the run, which is removed, and the feature cache, which stays */
export async function runCell(cell: Cell, work: string): Promise<Result> {
  const begin = cpuUsage();
  const output_dir = join(work, `run-${process.pid}`);
  await rm(output_dir, { recursive: true, force: true });
  let row: Record<string, unknown> = {};
  const onMetrics = (metrics: Record<string, unknown>) => {
    if ('eval_loss' in metrics) row = metrics;
  };
  const { steps, train_seconds } = await fit(settingsOf(cell, work, output_dir), { onMetrics });
  await rm(output_dir, { recursive: true, force: true });
  const { user, system } = cpuUsage(begin);
  const scores = Object.fromEntries(
    ['exact', 'loss', DATA[cell.data].metric].map((name) => [name, digits(row[`eval_${name}`] as number)]),
  );
  return {
    ...cell,
    steps,
    scores,
    seconds: digits((user + system) / 1e6),
    train_seconds: digits(train_seconds),
  };
}

export function settingsOf(
  { data, variant, size, seed, rate, split }: Cell,
  work: string,
  output_dir: string,
): FitConfig {
  const { folder, task } = DATA[data];
  const { preset, lora } = VARIANTS.find(({ name }) => name === variant)!;
  return parseConfig({
    model: MODEL,
    data: join(folder, 'train'),
    eval_data: join(folder, split),
    output_dir,
    task,
    preset,
    ...(lora && { lora }),
    seed,
    learning_rate: rate,
    max_steps: stepsOf(size),
    warmup_ratio: 0.1,
    per_device_train_batch_size: batchOf(),
    per_device_eval_batch_size: 50,
    train_limit: size,
    eval_limit: EVALUATED,
    eval_steps: stepsOf(size),
    save_steps: stepsOf(size),
    predict_with_generate: true,
    load_best_model_at_end: false,
    final_evaluation: 'none',
    report_to: 'none',
    cache_dir: join(work, 'features'),
  });
}

const digits = (value: number) => Number(value.toPrecision(5));
