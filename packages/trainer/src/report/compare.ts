/** Runs side by side: which is best, whether by more than noise, and what differs in their settings. */
import { basename } from 'node:path';
import type { FitConfig } from '../config';
import type { Interval } from '../evaluation/bootstrap';
import { bootstrap } from '../evaluation/bootstrap';
import type { Headline } from '../evaluation/evidence';
import { percent } from '../evaluation/numbers';
import type { Outcome, Verdict } from '../evaluation/verdict';
import { HEADLINES } from '../evaluation/verdict';
import type { Run, SampleRow } from './run-files';

export interface ComparedRun {
  name: string;
  dir: string;
  preset: string;
  data: string;
  /** training examples; absent for a run that has not ended */
  train?: number;
  /** optimizer steps done */
  steps: number;
  seconds?: number;
  outcome?: Outcome;
  headline?: Headline;
  score?: Interval;
  others: Verdict['others'];
  loss: { training?: number; validation?: number };
  /** bytes of the adapter, or of the model */
  bytes?: number;
  /** why it is not compared with the best run; absent if it is */
  apart?: string;
  /** by how much the best run is better, with the interval of the paired differences by picture; 0 for the best */
  behind?: Interval;
}

export interface Comparison {
  runs: ComparedRun[];
  /** the name of the best run among those that were scored on the same rows */
  best?: string;
  /** settings that are not the same in all runs, with a value for each run */
  settings: { name: string; values: string[] }[];
  /** what follows, one sentence each */
  sentences: string[];
}

/** @param bytes size of the result of each run */
export function compareRuns(runs: readonly Run[], bytes: readonly (number | undefined)[]): Comparison {
  const named = runs.map((run, i): ComparedRun => ({ ...summary(run, runs), bytes: bytes[i] }));
  const keys = runs.map(rowsKey);
  const common = commonest(keys.filter((key) => key !== undefined));
  const whyApart = runs.map((run, i) => apartness(run, keys[i], common));
  const together = named.filter((_, i) => whyApart[i] === undefined);
  const best = together.reduce<ComparedRun | undefined>(
    (first, run) => (!first || run.score!.mean > first.score!.mean ? run : first),
    undefined,
  );
  const bestScores = best && pictureScores(runs[named.indexOf(best)].samples);
  const compared = named.map((run, i): ComparedRun => {
    if (whyApart[i] !== undefined) return { ...run, apart: whyApart[i] };
    const scores = pictureScores(runs[i].samples)!;
    return {
      ...run,
      behind: bootstrap([...bestScores!].map(([image, score]) => score - scores.get(image)!)),
    };
  });
  const made = { runs: compared, best: best?.name, settings: differences(runs.map(({ config }) => config)) };
  return { ...made, sentences: sentencesOf(made) };
}

function summary({ dir, config, results, metrics }: Run, all: readonly Run[]): ComparedRun {
  const name = basename(dir);
  const { verdict } = results ?? {};
  const last = (field: 'loss' | 'eval_loss') => metrics.findLast((row) => row[field] !== undefined)?.[field];
  return {
    name: all.filter((other) => basename(other.dir) === name).length > 1 ? dir : name,
    dir,
    preset: config.preset,
    data: config.data,
    train: results?.data.train,
    steps: results?.steps ?? metrics.at(-1)?.step ?? 0,
    seconds: results?.train_seconds,
    outcome: verdict?.outcome,
    headline: verdict?.headline,
    score: verdict?.score,
    others: verdict?.others ?? {},
    loss: { training: last('loss'), validation: last('eval_loss') },
  };
}

/** What was scored, and how: equal for runs whose scores can be compared. */
function rowsKey({ samples, results }: Run): string | undefined {
  const { headline, score } = results?.verdict ?? {};
  if (!headline || !score || samples.length === 0) return undefined;
  const rows = samples.map(({ image, question, reference, references }) =>
    JSON.stringify([image, question, references ?? [reference]]),
  );
  return JSON.stringify([headline, rows.sort()]);
}

function commonest(keys: string[]): string | undefined {
  const times = new Map<string, number>();
  for (const key of keys) times.set(key, (times.get(key) ?? 0) + 1);
  return [...times].reduce<[string?, number?]>((most, one) => (one[1] > (most[1] ?? 0) ? one : most), [])[0];
}

function apartness({ results, samples }: Run, key: string | undefined, common: string | undefined) {
  if (!results) return 'it has not ended';
  if (key === undefined) return 'it has no scored held-out rows';
  if (key !== common) return 'it was scored on other rows, or by another score';
  return pictureScores(samples) ? undefined : 'it is of an earlier version, without a score of each row';
}

/** The mean score of each picture; undefined where a row has none. */
function pictureScores(samples: readonly SampleRow[]): Map<string, number> | undefined {
  const rows = new Map<string, number[]>();
  for (const { image, score } of samples) {
    if (score === undefined) return undefined;
    rows.set(image, [...(rows.get(image) ?? []), score]);
  }
  return new Map(
    [...rows].map(([image, all]) => [image, all.reduce((sum, one) => sum + one, 0) / all.length]),
  );
}

/** Where a run is, and what it may take, does not change what it learns. */
const PLACES: (keyof FitConfig)[] = ['output_dir', 'cache_dir', 'cache_limit_mb', 'cache_memory_mb'];

function differences(configs: readonly FitConfig[]): Comparison['settings'] {
  const flat = configs.map((config) => new Map(flatten(config)));
  const names = [...new Set(flat.flatMap((values) => [...values.keys()]))];
  return names
    .filter((name) => !PLACES.some((place) => place === name))
    .map((name) => ({ name, values: flat.map((values) => values.get(name) ?? '–') }))
    .filter(({ values }) => new Set(values).size > 1);
}

function flatten(value: object, prefix = ''): [string, string][] {
  return Object.entries(value).flatMap(([name, inner]): [string, string][] => {
    if (inner === undefined) return [];
    if (typeof inner === 'object' && inner !== null && !Array.isArray(inner))
      return flatten(inner as object, `${prefix}${name}.`);
    return [[prefix + name, typeof inner === 'string' ? inner : JSON.stringify(inner)]];
  });
}

/** A difference of scores: points of shares, or CIDEr-D. */
export function points(headline: Headline, difference: number): string {
  const shown =
    headline === 'cider_d'
      ? HEADLINES.cider_d.show(difference)
      : percent(difference).replace(' %', ' points');
  return shown.replace('-', '−');
}

/** Whether the interval of a difference is above 0. */
export const isBeyondNoise = ({ low }: Interval): boolean => low > 0;

function sentencesOf({ runs, best: name }: Omit<Comparison, 'sentences'>): string[] {
  const best = runs.find((run) => run.name === name);
  const apart = runs.flatMap((run) => (run.apart ? [`not compared: ${run.name}, ${run.apart}`] : []));
  if (!best?.headline || !best.score) return ['no run has a score that can be compared', ...apart];
  const { headline, score } = best;
  const { name: what, show } = HEADLINES[headline];
  const others = runs.filter((run) => run.behind && run !== best);
  const range = `95 % interval ${show(score.low)} to ${show(score.high)}`;
  return [
    `best: ${best.name}, ${what} ${show(score.mean)} (${range})`,
    ...others.map((run) => distance(run, headline)),
    ...apart,
  ];
}

function distance({ name, behind }: ComparedRun, headline: Headline): string {
  const { mean, low, high } = behind!;
  const range = `${points(headline, mean)} (95 % interval ${points(headline, low)} to ${points(headline, high)}, by picture)`;
  return isBeyondNoise(behind!)
    ? `worse: ${name}, by ${range}`
    : `within the noise of the best: ${name}, behind by ${range}`;
}
