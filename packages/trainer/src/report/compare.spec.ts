import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Filled } from '../../spec/run-folder';
import { fillRun } from '../../spec/run-folder';
import { compareRuns } from './compare';
import { compare, comparisonTable, writeComparison } from './compare-page';
import type { Run, SampleRow } from './run-files';
import { readRun } from './run-files';

let root: string;
beforeEach(async () => void (root = await mkdtemp(join(tmpdir(), 'compare-'))));

/** A finished run in which picture i has the score `scores[i]`. */
async function runOf(name: string, scores: number[], filled: Filled = {}): Promise<Run> {
  const dir = join(root, name);
  await fillRun(dir, filled);
  const run = await readRun(dir);
  const samples = scores.map((score, i): SampleRow => ({
    image: `${i}.png`,
    reference: 'a',
    after: 'a',
    score,
  }));
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
  run.results!.verdict!.score = { mean, low: mean - 0.1, high: mean + 0.1 };
  return { ...run, samples };
}
const half = Array.from({ length: 40 }, (_, i) => i % 2);
const bytes = [1, 2, 3];

describe('compareRuns', () => {
  it('finds the best run, and whether it is better by more than noise, paired by picture', async () => {
    const close = half.map((score, i) => (i === 0 ? 1 : score));
    const bad = half.map((score, i) => (i % 4 === 1 ? 0 : score));
    const runs = [await runOf('base', half), await runOf('close', close), await runOf('bad', bad)];
    const { best, runs: rows, sentences } = compareRuns(runs, bytes);
    expect(best).toBe('close');
    expect(rows.map(({ behind }) => behind?.mean)).toEqual([1 / 40, 0, 11 / 40]);
    expect(sentences[0]).toMatch(/^best: close, exact match 52\.5 % \(95 % interval/);
    expect(sentences[1]).toMatch(
      /^within the noise of the best: base, behind by 2\.5 points \(95 % interval 0\.0/,
    );
    expect(sentences[2]).toMatch(/^worse: bad, by 27\.5 points/);
  });

  it('pairs rows by picture, whatever their order', async () => {
    const runs = [await runOf('a', half), await runOf('b', half)];
    runs[1].samples.reverse();
    expect(compareRuns(runs, bytes).runs.map(({ behind }) => behind)).toEqual([
      { mean: 0, low: 0, high: 0 },
      { mean: 0, low: 0, high: 0 },
    ]);
  });

  it('compares no runs that were scored on other rows, have not ended, or have no scores', async () => {
    const other = await runOf('other', [1, 1, 1]);
    const old = await runOf('old', half);
    for (const row of old.samples) delete row.score;
    await fillRun(join(root, 'stopped'), { finished: false });
    const runs = [
      await runOf('a', half),
      await runOf('b', half),
      other,
      old,
      await readRun(join(root, 'stopped')),
    ];
    const { best, runs: rows, sentences } = compareRuns(runs, []);
    expect(best).toBe('a');
    expect(rows.map(({ apart }) => apart?.replace(/,.*/, ''))).toEqual([
      undefined,
      undefined,
      'it was scored on other rows',
      'it is of an earlier version',
      'it has not ended',
    ]);
    expect(sentences).toContain('not compared: stopped, it has not ended');
  });

  it('lists only settings that differ, without folders', async () => {
    const runs = [
      await runOf('a', half),
      await runOf('b', half, { config: { preset: 'qformer', learning_rate: 0.5, lora: undefined } }),
    ];
    expect(compareRuns(runs, bytes).settings).toEqual([
      { name: 'preset', values: ['lora', 'qformer'] },
      { name: 'lora.r', values: ['16', '–'] },
      { name: 'lora.lora_alpha', values: ['32', '–'] },
      { name: 'lora.lora_dropout', values: ['0.05', '–'] },
      { name: 'learning_rate', values: ['0.0002', '0.5'] },
    ]);
  });

  it('is a table without the columns that are the same in all runs', async () => {
    const runs = [await runOf('a', half), await runOf('b', half.with(1, 0), { loss: 2 })];
    expect(comparisonTable(compareRuns(runs, [5e5, 7e6]))).toEqual([
      ['run', 'score', '95 % interval', 'to the best', 'training loss', 'validation loss', 'size'],
      ['a', 'exact match 50.0 %', '40.0 % to 60.0 %', 'best', '0.100', '0.800', '0.5 MB'],
      ['b', 'exact match 47.5 %', '37.5 % to 57.5 %', '−2.5 points, within noise', '0.200', '1.60', '7.0 MB'],
    ]);
  });
});

describe('the page', () => {
  it('is written over a page of this program, and over no other file', async () => {
    const dirs = ['<b>one', 'two'].map((name) => join(root, name));
    for (const dir of dirs) await fillRun(dir);
    const { runs, comparison } = await compare(dirs);
    const file = join(root, 'compare.html');
    await writeComparison(file, runs, comparison);
    await writeComparison(file, runs, comparison);
    const page = await readFile(file, 'utf8');
    expect(page).toContain('&lt;b&gt;one');
    expect(page).not.toContain('<b>one');
    expect(page).toContain('aria-label="Training loss: &lt;b&gt;one from 4 at 10 to 0.1 at 100; two from');
    const mine = join(root, 'mine.html');
    await writeFile(mine, '<p>mine');
    await expect(writeComparison(mine, runs, comparison)).rejects.toThrow(
      'expected a new file or a page of blip2',
    );
    expect(await readFile(mine, 'utf8')).toBe('<p>mine');
  });
});
