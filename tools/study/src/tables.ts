/** The tables of docs/which-layers.md. */
import { DATA } from './data';
import type { DataName, StudyData } from './data';
import type { Check } from './check';
import { deviation, leastDifference, mean } from './statistics';
import { compared } from './summary';
import type { Group, Summary } from './summary';
import { VARIANTS } from './variants';

export interface Table {
  head: string[];
  rows: string[][];
}

/** By the name that a marked place has: study/emoji … */
export function tablesOf(summary: Summary, checks: readonly Check[]): Record<string, Table> {
  const scores = Object.values(DATA).flatMap((data) => {
    const groups = summary.groups.filter((group) => group.data === data.name);
    return groups.length > 0 ? [[data.name, scoreTable(data, groups)] as const] : [];
  });
  return {
    ...Object.fromEntries(scores),
    cost: costTable(summary),
    rates: rateTable(summary),
    check: checkTable(checks),
  };
}

/** CIDEr-D in per cent, as papers print it; accuracy in per cent. */
export const percent = (score: number) => 100 * score;

export const sizeName = (size: number, { sizes, tuned }: StudyData) =>
  tuned && size === sizes[sizes.length - 1] ? `all ${count(size)}` : count(size);

const count = (n: number) => n.toLocaleString('en');

function scoreTable(data: StudyData, groups: readonly Group[]): Table {
  const sizes = data.sizes.filter((size) => groups.some((group) => group.size === size));
  const marks = new Map(sizes.map((size) => [size, atTheTop(compared(groups, size))]));
  const rows = VARIANTS.flatMap(({ name }) => {
    const own = groups.filter(({ variant }) => variant === name);
    if (own.length === 0) return [];
    const cell = (size: number) => {
      const group = own.find((one) => one.size === size);
      return group ? scoreText(data, group) + (marks.get(size)!.has(group) ? ' *' : '') : '';
    };
    return [[name, ...sizes.map(cell)]];
  });
  return { head: ['trained', ...sizes.map((size) => sizeName(size, data))], rows };
}

function scoreText({ metric }: StudyData, { score, exact }: Group): string {
  const text = `${percent(mean(score)).toFixed(metric === 'accuracy' ? 1 : 0)} ± ${percent(deviation(score)).toFixed(metric === 'accuracy' ? 1 : 0)}`;
  return metric === 'accuracy' ? text : `${text} (${percent(mean(exact)).toFixed(0)} %)`;
}

/** The best group and those that differ from it by less than chance may. */
export function atTheTop(groups: readonly Group[]): Set<Group> {
  if (groups.length < 2) return new Set(groups);
  const best = Math.max(...groups.map(({ score }) => mean(score)));
  const margin = leastDifference(groups.map(({ score }) => score));
  return new Set(groups.filter(({ score }) => best - mean(score) <= margin));
}

/** Seconds of one core of whole runs with the same number of steps. */
function costTable({ groups }: Summary): Table {
  const size = 1000;
  const own = groups.filter((group) => group.data === 'emoji' && group.size === size);
  const rows = own.map(({ variant, seconds }) => [variant, mean(seconds).toFixed(0)]);
  return { head: ['trained', `core seconds, ${own[0]?.steps ?? ''} steps of 8`], rows };
}

function rateTable({ tunings, groups }: Summary): Table {
  const names = Object.keys(DATA) as DataName[];
  const rate = (data: DataName, variant: string) =>
    tunings.find((one) => one.data === data && one.variant === variant)?.chosen ??
    groups.find((one) => one.data === data && one.variant === variant)?.rate;
  const rows = VARIANTS.map(({ name }) => [name, ...names.map((data) => rateText(rate(data, name)))]);
  return { head: ['trained', ...names], rows: rows.filter(([, ...cells]) => cells.some(Boolean)) };
}

const rateText = (rate: number | undefined) => (rate === undefined ? '' : rate.toExponential());

function checkTable(checks: readonly Check[]): Table {
  return {
    head: [
      'pictures',
      'recommended',
      'accuracy',
      'best',
      'accuracy',
      'difference',
      'could be chance up to',
      '',
    ],
    rows: checks.map(({ size, recommended, best, difference, margin }) => [
      count(size),
      recommended.variant,
      scoreText(DATA[recommended.data], recommended),
      best.variant,
      scoreText(DATA[best.data], best),
      percent(difference).toFixed(1),
      percent(margin).toFixed(1),
      difference <= margin ? 'within noise' : 'worse',
    ]),
  };
}
