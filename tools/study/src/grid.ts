/** What is measured, in the order of its importance, and what of it is left. */
import type { DataName } from './data';
import { DATA } from './data';
import { between, chosenRate, ratesLeft } from './rates';
import type { Tried } from './rates';
import type { Variant } from './variants';
import { VARIANTS } from './variants';

/** One run of `fit`. */
export interface Cell {
  data: DataName;
  variant: string;
  /** training pictures */
  size: number;
  seed: number;
  rate: number;
  /** `validation` chooses the rate, `test` is what the tables show */
  split: 'validation' | 'test';
}

export interface Result extends Cell {
  steps: number;
  /** of the split: exact, loss, and cider_d or accuracy; shares, CIDEr-D from 0 to 10 */
  scores: Record<string, number>;
  /** of one core: the whole run, and its part spent in optimizer steps */
  seconds: number;
  train_seconds: number;
}

/** A cell whose learning rate may not be known yet. */
export type Wish = Omit<Cell, 'rate' | 'split'>;

const SEEDS = [0, 1, 2];
const TUNED_AT = { size: 200, seed: 0 };
const BATCH = 8;

/** Optimizer steps by the number of training pictures: the same for all variants. */
export function stepsOf(size: number): number {
  if (size <= 50) return 150;
  if (size <= 200) return 200;
  return size <= 1000 ? 300 : 800;
}

export const batchOf = () => BATCH;

/** Everything, the most important first. */
export function wishes(): Wish[] {
  const main = VARIANTS.filter((variant) => variant.main);
  const others = VARIANTS.filter((variant) => !variant.main);
  const fast = main.filter(({ whole }) => !whole);
  const { emoji, charts, scenes } = DATA;
  const both = (variants: readonly Variant[], at: (sizes: readonly number[]) => number[]) =>
    [emoji, charts].flatMap(({ name, sizes }) => cells(name, variants, at(sizes)));
  const presets = main.filter(({ name, preset }) => name === preset);
  return [
    ...both(presets, () => [1000, 200]),
    ...cells(scenes.name, presets, scenes.sizes),
    ...both(main, () => [200]).filter(({ variant }) => !presets.some(({ name }) => name === variant)),
    ...both(fast, ([few]) => [few]),
    ...cells(emoji.name, others, [200]),
    ...both(
      fast.filter(({ preset }) => preset.startsWith('lora')),
      ([, , , all]) => [all],
    ),
  ];
}

function cells(data: DataName, variants: readonly Variant[], sizes: readonly number[]): Wish[] {
  return sizes.flatMap((size) =>
    SEEDS.flatMap((seed) => variants.map(({ name }) => ({ data, variant: name, size, seed }))),
  );
}

/** The cells that can be run now, in order: of a wish whose rate is not chosen yet, the ones that choose it. */
export function cellsLeft(results: readonly Result[], wanted: readonly Wish[] = wishes()): Cell[] {
  const done = new Set(results.map(nameOf));
  const left = new Map<string, Cell>();
  for (const wish of wanted) {
    const rate = rateOf(results, wish);
    const needed =
      rate === undefined ? tuningCells(results, wish) : [{ ...wish, rate, split: 'test' as const }];
    for (const cell of needed) if (!done.has(nameOf(cell))) left.set(nameOf(cell), cell);
  }
  return [...left.values()];
}

/** The tuned learning rate, if it is known. */
export function rateOf(results: readonly Result[], { data, variant }: Pick<Wish, 'data' | 'variant'>) {
  const rates = tunedSets(data, variant).map((name) => chosenRate(triedRates(results, name, variant)));
  const known = rates.filter((rate) => rate !== undefined);
  return known.length === rates.length ? between(known) : undefined;
}

/** The data sets that a rate is tuned on. The slow variants take those of emoji everywhere. */
function tunedSets(data: DataName, variant: string): DataName[] {
  if (VARIANTS.some(({ name, whole }) => name === variant && whole)) return ['emoji'];
  if (DATA[data].tuned) return [data];
  return Object.values(DATA).flatMap(({ name, tuned }) => (tuned ? [name] : []));
}

function tuningCells(results: readonly Result[], { data, variant }: Wish): Cell[] {
  return tunedSets(data, variant).flatMap((name) =>
    ratesLeft(triedRates(results, name, variant)).map((rate) => ({
      ...TUNED_AT,
      data: name,
      variant,
      rate,
      split: 'validation' as const,
    })),
  );
}

export function triedRates(results: readonly Result[], data: DataName, variant: string): Tried[] {
  return results
    .filter((one) => one.split === 'validation' && one.data === data && one.variant === variant)
    .map(({ rate, scores }) => ({ rate, score: scores[DATA[data].metric] }));
}

export const nameOf = ({ data, variant, size, seed, rate, split }: Cell): string =>
  [data, variant, size, `seed ${seed}`, rate, split].join(', ');

/** What is left in all, with the wishes whose rate is not chosen yet and what chooses it (three rates at least). */
export function workLeft(results: readonly Result[]): Pick<Cell, 'variant' | 'size'>[] {
  const unknown = wishes().filter((wish) => rateOf(results, wish) === undefined);
  return [...cellsLeft(results), ...unknown];
}

/** An estimate of the time of runs, of one core: as runs of the same variant took per step, else of any. */
export function secondsFor(
  work: readonly Pick<Cell, 'variant' | 'size'>[],
  results: readonly Result[],
): number {
  const pace = (of: readonly Result[]) =>
    of.reduce((sum, { seconds }) => sum + seconds, 0) / of.reduce((sum, { steps }) => sum + steps, 0);
  const any = results.length > 0 ? pace(results) : 0.1;
  return work.reduce((sum, { variant, size }) => {
    const same = results.filter((one) => one.variant === variant);
    return sum + stepsOf(size) * (same.length > 0 ? pace(same) : any);
  }, 0);
}
