/** The results as they are committed: one line for each data set, variant and size, and one for each choice of a rate. */
import { DATA } from './data';
import type { DataName } from './data';
import { chosenRate } from './rates';
import type { Tried } from './rates';
import { rateOf, triedRates } from './grid';
import type { Result } from './grid';
import { VARIANTS } from './variants';

/** The runs with the same settings; the lists are in the order of the seeds. */
export interface Group {
  data: DataName;
  variant: string;
  size: number;
  rate: number;
  steps: number;
  seeds: number[];
  /** CIDEr-D from 0 to 10, or accuracy from 0 to 1 */
  score: number[];
  exact: number[];
  /** of one core */
  seconds: number[];
}

export interface Tuning {
  data: DataName;
  variant: string;
  chosen: number;
  tried: Tried[];
}

export interface Summary {
  date: string;
  machine: string;
  tunings: Tuning[];
  groups: Group[];
}

/** Only groups with all seeds; runs with another rate than the chosen one are left out. */
export function summarize(results: readonly Result[], about: Pick<Summary, 'date' | 'machine'>): Summary {
  const groups = new Map<string, Result[]>();
  for (const result of results) {
    if (result.split !== 'test' || result.rate !== rateOf(results, result)) continue;
    const key = [result.data, result.variant, result.size].join('/');
    groups.set(key, [...(groups.get(key) ?? []), result]);
  }
  return {
    ...about,
    tunings: tuningsOf(results),
    groups: [...groups.values()].filter(complete).map(groupOf).sort(inOrder),
  };
}

const complete = (runs: readonly Result[]) => runs.length >= 3;

function groupOf(runs: readonly Result[]): Group {
  const sorted = [...runs].sort((a, b) => a.seed - b.seed);
  const [{ data, variant, size, rate, steps }] = sorted;
  const { metric } = DATA[data];
  return {
    ...{ data, variant, size, rate, steps },
    seeds: sorted.map(({ seed }) => seed),
    score: sorted.map(({ scores }) => scores[metric]),
    exact: sorted.map(({ scores }) => scores.exact),
    seconds: sorted.map(({ seconds }) => seconds),
  };
}

function tuningsOf(results: readonly Result[]): Tuning[] {
  return Object.values(DATA).flatMap(({ name: data }) =>
    VARIANTS.flatMap(({ name: variant }) => {
      const tried = triedRates(results, data, variant).sort((a, b) => a.rate - b.rate);
      const chosen = tried.length > 0 ? chosenRate(tried) : undefined;
      return chosen === undefined ? [] : [{ data, variant, chosen, tried }];
    }),
  );
}

/** The main variants at one size, for which a difference can be judged. */
export const compared = (groups: readonly Group[], size: number): Group[] =>
  groups.filter(
    (group) => group.size === size && VARIANTS.some(({ name, main }) => main && name === group.variant),
  );

const DATA_ORDER = Object.keys(DATA);
const VARIANT_ORDER = VARIANTS.map(({ name }) => name);
const inOrder = (a: Group, b: Group) =>
  DATA_ORDER.indexOf(a.data) - DATA_ORDER.indexOf(b.data) ||
  VARIANT_ORDER.indexOf(a.variant) - VARIANT_ORDER.indexOf(b.variant) ||
  a.size - b.size;

/** JSON with one line for each entry. */
export function summaryText({ date, machine, tunings, groups }: Summary): string {
  const lines = (list: readonly object[]) => list.map((one) => `    ${JSON.stringify(one)}`).join(',\n');
  return `{\n  "date": ${JSON.stringify(date)},\n  "machine": ${JSON.stringify(machine)},\n  "tunings": [\n${lines(tunings)}\n  ],\n  "groups": [\n${lines(groups)}\n  ]\n}\n`;
}
