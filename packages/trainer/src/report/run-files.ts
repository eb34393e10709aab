/** The files of a run folder that the report reads. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { openRegular, readRegular } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import { fromYaml } from '../config';
import type { Figures } from '../evaluation/figures';
import type { NextStep } from '../evaluation/next-step';
import type { ResultsTable } from '../evaluation/results';
import type { Verdict } from '../evaluation/verdict';
import type { MetricRow, TrainingSample } from '../run/logs';

/** A row of samples.jsonl: one test example with its texts. */
export interface SampleRow {
  image: string;
  question?: string;
  /** the first reference */
  reference: string;
  /** all, if there are several */
  references?: string[];
  /** the base's text, before training */
  before?: string;
  after: string;
  /** of the verdict's headline: 0 … 1, of CIDEr-D 0 … 10; absent in runs of earlier versions */
  score?: number;
}

/** results.json */
export interface RunResults {
  /** absent in runs of earlier versions */
  verdict?: Verdict;
  next?: NextStep;
  /** absent without held-out examples */
  table?: ResultsTable;
  /** caption metrics or VQA accuracy, and measures of degeneration; present with the table */
  figures?: Figures;
  /** the trainable-parameters line, as PEFT prints it */
  trainable: string;
  /** examples per split */
  data: { train: number; validation?: number; test?: number };
  steps: number;
  /** seconds of training alone */
  train_seconds: number;
  backend: string;
}

export interface Run {
  dir: string;
  config: FitConfig;
  configText: string;
  environment: Record<string, unknown>;
  metrics: MetricRow[];
  samples: SampleRow[];
  /** the texts of a few pictures during training */
  course: TrainingSample[];
  results: RunResults | undefined;
}

/** A damaged file of a run folder. */
export class RunFileError extends Error {
  override name = 'RunFileError';
}

/** Reads a run folder; files that a stopped run has not written yet are left empty. */
export async function readRun(dir: string): Promise<Run> {
  const file = (name: string) => join(dir, name);
  if (!existsSync(file('config.yaml')))
    throw new Error(
      `${dir}: expected a run folder with a config.yaml, found none; runs are made by \`blip2 fit\``,
    );
  const configText = await textOf(file('config.yaml'));
  return {
    dir,
    configText,
    config: fromYaml(configText, file('config.yaml')),
    environment: ((await json(file('environment.json'))) ?? {}) as Record<string, unknown>,
    metrics: (await jsonLines(file('metrics.jsonl'))) as MetricRow[],
    samples: (await jsonLines(file('samples.jsonl'))) as SampleRow[],
    course: (await jsonLines(file('training-samples.jsonl'))) as TrainingSample[],
    results: (await json(file('results.json'))) as RunResults | undefined,
  };
}

async function json(file: string): Promise<unknown> {
  return existsSync(file) ? parse(await textOf(file), file) : undefined;
}

async function jsonLines(file: string): Promise<unknown[]> {
  return existsSync(file) ? parseLines(await textOf(file), file) : [];
}

/** Bytes of the longest log: rows of some two million steps, and less than a string may have. */
const MOST_BYTES = 400_000_000;

/** The text of a file, or of its first bytes. @throws RunFileError that names a file that cannot be read, or is too long */
export async function textOf(file: string, length?: number): Promise<string> {
  try {
    if (length === undefined) return (await readRegular(file, MOST_BYTES)).toString('utf8');
    return (await headOf(file, Math.min(length, MOST_BYTES))).toString('utf8');
  } catch (error) {
    throw new RunFileError(`${file}: cannot be read: ${(error as Error).message}`);
  }
}

async function headOf(file: string, length: number): Promise<Buffer> {
  const { handle, size } = await openRegular(file);
  try {
    const bytes = Buffer.alloc(Math.min(length, size));
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
    return bytes.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** Parses JSON Lines. @throws RunFileError that names file and line */
export function parseLines(text: string, file: string): unknown[] {
  return text.split('\n').flatMap((line, i) => (line.trim() === '' ? [] : [parse(line, `${file}:${i + 1}`)]));
}

function parse(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    const found = JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
    throw new RunFileError(
      `${where}: expected JSON, found ${found}; put the file back from a copy, or delete it and lose what it records`,
    );
  }
}
