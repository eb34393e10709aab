/** The files of a run that only grow: metrics, samples, TensorBoard events. A checkpoint remembers how long they were. */
import { dirname, join } from 'node:path';
import { makeFolders } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import type { RunLog } from './folder';
import { runLog } from './folder';
import { fileVersion, scalars, text } from './tensorboard';

const METRICS = 'metrics.jsonl';
const SAMPLES = 'training-samples.jsonl';
const EVENTS = 'tensorboard/events.out.tfevents.blip2';

/** A row of metrics.jsonl: a training row has `loss`, an evaluation row `eval_loss`. */
export interface MetricRow {
  step: number;
  epoch?: number;
  loss?: number;
  learning_rate?: number;
  images_per_second?: number;
  eval_loss?: number;
  eval_exact?: number;
  [name: string]: unknown;
}

/** A text generated during training for one of the fixed images. */
export interface TrainingSample {
  step: number;
  image: string;
  question?: string;
  reference: string;
  text: string;
}

export interface RunLogs {
  /** a row of metrics.jsonl */
  metrics(row: Record<string, unknown>): Promise<void>;
  samples(rows: TrainingSample[]): Promise<void>;
  /** Flushes all files and returns their lengths in bytes, without rows that were written in part. */
  flush(): Promise<Record<string, number>>;
  /** Truncates each file to its length; files without one become empty. */
  cutTo(lengths: Record<string, number>): Promise<void>;
}

/** The logs of a rank that writes nothing. */
export const noLogs: RunLogs = {
  metrics: async () => undefined,
  samples: async () => undefined,
  flush: async () => ({}),
  cutTo: async () => undefined,
};

/** Opens the logs of an existing run folder. */
export async function openLogs(dir: string, config: FitConfig): Promise<RunLogs> {
  const events = config.report_to === 'tensorboard' ? EVENTS : undefined;
  const names = [
    METRICS,
    ...(config.sample_steps === undefined ? [] : [SAMPLES]),
    ...(events ? [events] : []),
  ];
  for (const name of names) await makeFolders(dirname(join(dir, name)));
  const logs = new Map(names.map((name): [string, RunLog] => [name, runLog(join(dir, name))]));
  const event = events === undefined ? () => Promise.resolve() : eventWriter(logs.get(events)!);
  const lines = (rows: object[]) => rows.map((row) => JSON.stringify(row) + '\n').join('');
  const flush = async () => {
    const lengths = [...logs].map(async ([name, log]) => [name, await log.flush()] as const);
    return Object.fromEntries(await Promise.all(lengths));
  };
  /** the lengths before an entry that could not be written to all files */
  let whole: Record<string, number> | undefined;
  const entry = async (write: () => Promise<void>) => {
    whole ??= await flush();
    await write();
    whole = undefined;
  };
  return {
    metrics: (row) =>
      entry(async () => {
        await logs.get(METRICS)!.append(lines([row]));
        await event((now) => scalars(tagged(row), row.step as number, now));
      }),
    samples: (rows) =>
      entry(async () => {
        await logs.get(SAMPLES)?.append(lines(rows));
        await event((now) => text('samples', markdown(rows), rows[0].step, now));
      }),
    flush: async () => whole ?? (await flush()),
    cutTo: async (lengths) => {
      for (const [name, log] of logs) await log.cutTo(lengths[name] ?? 0);
    },
  };
}

/** Appends events. A new file starts with the record that every event file needs. */
function eventWriter(log: RunLog): (make: (wallTime: number) => Buffer) => Promise<void> {
  return async (make) => {
    const now = Date.now() / 1000;
    const begin = (await log.flush()) === 0 ? [fileVersion(now)] : [];
    await log.append(Buffer.concat([...begin, make(now)]));
  };
}

/** Names as in transformers' TensorBoard callback: train/loss, eval/loss, test/exact. */
function tagged(row: Record<string, unknown>): Record<string, unknown> {
  const names = Object.entries(row).filter(([name]) => name !== 'step');
  return Object.fromEntries(names.map(([name, value]) => [tagOf(name), value]));
}

function tagOf(name: string): string {
  const [, of, what] = /^(eval|test|validation)_(.+)$/.exec(name) ?? [undefined, 'train', name];
  return `${of}/${what}`;
}

function markdown(rows: TrainingSample[]): string {
  const cell = (value: string) => value.replace(/[\\|]/g, '\\$&').replace(/\s+/g, ' ');
  const lines = rows.map((row) => `| ${cell(row.reference)} | ${cell(row.text)} |`);
  return ['| reference | text |', '|---|---|', ...lines].join('\n');
}
