import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checksOf } from './check';
import { documents, readSummary, ROOT } from './document';
import type { Cell, Result } from './grid';
import { cellsLeft } from './grid';
import { picture } from './picture';
import { DATA } from './data';
import { summarize, summaryText } from './summary';
import type { Group, Summary } from './summary';
import { atTheTop, tablesOf } from './tables';

const group = (variant: string, score: number[], more: Partial<Group> = {}): Group => ({
  ...{ data: 'scenes', variant, size: 200, rate: 1e-3, steps: 200, seeds: [0, 1, 2] },
  ...{ score, exact: score, seconds: [10, 11, 12] },
  ...more,
});
const summary = (groups: Group[]): Summary => ({ date: '2026-11-28', machine: 'm', tunings: [], groups });

describe('the documents', () => {
  it('show the committed results (else: npm run study -- render)', async () => {
    for (const [path, text] of await documents(await readSummary()))
      expect([path, await readFile(join(ROOT, path), 'utf8')]).toEqual([path, text]);
  });

  it('have the recommended preset within noise of the best one on data that no rule was made from', async () => {
    const checks = checksOf(await readSummary());
    expect(checks.map(({ size }) => size)).toEqual(DATA.scenes.sizes);
    for (const { difference, margin } of checks) expect(difference).toBeLessThanOrEqual(margin);
  });
});

describe('a summary', () => {
  const run = (cell: Partial<Cell>, score: number): Result => ({
    ...{ data: 'emoji', variant: 'lora', size: 200, seed: 0, rate: 1e-3, split: 'test' },
    ...cell,
    ...{ steps: 200, scores: { cider_d: score, exact: 0.5, loss: 1 }, seconds: 10, train_seconds: 9 },
  });
  const tuning = [3e-4, 1e-3, 3e-3].map((rate) => run({ rate, split: 'validation' }, rate === 1e-3 ? 2 : 1));

  it('has the runs with the chosen rate, by seed, once three are there', () => {
    const two = [...tuning, run({ seed: 2 }, 5), run({ seed: 0 }, 3), run({ seed: 1, rate: 3e-3 }, 9)];
    const about = { date: '2026-11-28', machine: 'm' };
    expect(summarize(two, about).groups).toEqual([]);
    const { groups, tunings } = summarize([...two, run({ seed: 1 }, 4)], about);
    expect(groups).toMatchObject([{ variant: 'lora', size: 200, seeds: [0, 1, 2], score: [3, 4, 5] }]);
    expect(tunings).toMatchObject([
      { chosen: 1e-3, tried: [{ rate: 3e-4 }, { rate: 1e-3 }, { rate: 3e-3 }] },
    ]);
    expect(JSON.parse(summaryText({ ...about, groups, tunings }))).toEqual({ ...about, groups, tunings });
    expect(
      cellsLeft([...two]).some(
        ({ variant, seed, split }) => variant === 'lora' && seed === 1 && split === 'test',
      ),
    ).toBe(true);
  });
});

describe('tables and pictures', () => {
  const groups = [
    group('lora', [0.8, 0.82, 0.84]),
    group('full', [0.81, 0.83, 0.84]),
    group('qformer-projection', [0.4, 0.42, 0.45]),
    group('lora', [0.9, 0.91, 0.92], { size: 1000 }),
  ];

  it('mark what cannot be told from the best', () => {
    const top = atTheTop(groups.filter(({ size }) => size === 200));
    expect([...top].map(({ variant }) => variant)).toEqual(['lora', 'full']);
    expect(tablesOf(summary(groups), []).scenes).toEqual({
      head: ['trained', '200', '1,000'],
      rows: [
        ['lora', '82.0 ± 2.0 *', '91.0 ± 1.0 *'],
        ['qformer-projection', '42.3 ± 2.5', ''],
        ['full', '82.7 ± 1.5 *', ''],
      ],
    });
  });

  it('compare the recommended preset with the best one', () => {
    const [check] = checksOf(summary(groups));
    expect(check.best.variant).toBe('full');
    expect(check.difference).toBeCloseTo(0.82667 - mean(check.recommended.score), 4);
    expect(() =>
      checksOf(summary([group('qformer-projection', [1, 1, 1]), group('full', [1, 1, 1])])),
    ).toThrow(/^check: expected a measurement of .*, the recommended preset for 200 pictures$/);
  });

  it('draw a line for each main variant', () => {
    const svg = picture(DATA.scenes, groups);
    expect(svg.match(/<polyline/g)).toHaveLength(5);
    expect(svg).toContain('<title>lora, 200 pictures: 82 ± 2</title>');
    expect(svg).not.toContain('NaN');
  });

  const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
});
