import { describe, expect, it } from 'vitest';
import { DATA } from './data';
import { cellsLeft, nameOf, stepsOf, wishes, workLeft } from './grid';
import type { Cell, Result } from './grid';
import { between, chosenRate, ratesLeft } from './rates';
import { VARIANTS } from './variants';

const FAST = VARIANTS.filter(({ main, whole }) => main && !whole).map(({ name }) => name);
const PRESETS = VARIANTS.filter(({ main, name, preset }) => main && name === preset);
/** A run whose score depends on its rate alone, with the best one at 1e-3. */
const finished = (cell: Cell, scoreOf = (rate: number) => -Math.abs(Math.log10(rate) + 3)): Result => ({
  ...cell,
  steps: stepsOf(cell.size),
  scores: { [DATA[cell.data].metric]: scoreOf(cell.rate), exact: 0.5 },
  seconds: 10,
  train_seconds: 8,
});

describe('the grid', () => {
  it('has the presets at 200 and 1,000 of every data set with three seeds, each once', () => {
    const names = wishes().map(({ data, variant, size, seed }) => [data, variant, size, seed].join('/'));
    expect(new Set(names).size).toBe(names.length);
    for (const { name } of Object.values(DATA))
      for (const size of [200, 1000])
        for (const { name: variant } of PRESETS)
          for (const seed of [0, 1, 2]) expect(names).toContain([name, variant, size, seed].join('/'));
  });

  it('begins with the rates, on validation, and continues with the test', () => {
    const begin = cellsLeft([]);
    expect(begin.every(({ split, size, seed }) => split === 'validation' && size === 200 && seed === 0)).toBe(
      true,
    );
    expect(begin).toHaveLength(3 * (FAST.length + VARIANTS.length)); // charts tune the fast ones, emoji tunes all
    const tuned = begin.map((cell) => finished(cell));
    expect(cellsLeft(tuned).every(({ split, rate }) => split === 'test' && rate === 1e-3)).toBe(true);
    expect(cellsLeft(tuned)).toHaveLength(wishes().length);
  });

  it('leaves out what is finished, whatever else is', () => {
    const tuned = cellsLeft([]).map((cell) => finished(cell));
    const [first, second] = cellsLeft(tuned);
    const left = cellsLeft([...tuned, finished(second)]);
    expect(left.map(nameOf)).toContain(nameOf(first));
    expect(left.map(nameOf)).not.toContain(nameOf(second));
    expect(workLeft([])).toHaveLength(begin().length + wishes().length);
  });

  it('gives data that is not tuned the rate between those of the others', () => {
    const results = cellsLeft([]).map((cell) =>
      finished(cell, (rate) =>
        cell.data === 'emoji' ? -Math.abs(Math.log10(rate) + 3) : -Math.abs(rate - 3e-3),
      ),
    );
    const more = cellsLeft(results).map((cell) => finished(cell, (rate) => -Math.abs(rate - 3e-3)));
    const scenes = cellsLeft([...results, ...more.filter(({ split }) => split === 'validation')]);
    expect(scenes.find(({ data, variant }) => data === 'scenes' && variant === 'lora')?.rate).toBe(0.0017);
  });

  const begin = () => cellsLeft([]);
});

describe('the choice of a learning rate', () => {
  const tried = (...pairs: [number, number][]) => pairs.map(([rate, score]) => ({ rate, score }));

  it('takes the best of three', () => {
    expect(ratesLeft([])).toEqual([3e-4, 1e-3, 3e-3]);
    expect(chosenRate(tried([3e-4, 1]))).toBeUndefined();
    expect(chosenRate(tried([3e-4, 1], [1e-3, 3], [3e-3, 2]))).toBe(1e-3);
  });

  it('goes on beyond the best, to a limit', () => {
    const rising = tried([3e-4, 1], [1e-3, 2], [3e-3, 3]);
    expect(ratesLeft(rising)).toEqual([1e-2]);
    expect(chosenRate(rising)).toBeUndefined();
    expect(chosenRate([...rising, { rate: 1e-2, score: 4 }])).toBe(1e-2);
    expect(ratesLeft(tried([3e-4, 3], [1e-3, 2], [3e-3, 1]))).toEqual([1e-4]);
  });

  it('is between others by their ratio', () => {
    expect(between([1e-4, 1e-2])).toBe(1e-3);
    expect(between([3e-3])).toBe(3e-3);
  });
});
