import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { cli, fitArgs, tinyData } from '../spec/testing';

it('compares two runs, in a table, as JSON and on a page', async () => {
  const data = await tinyData();
  const folder = await mkdtemp(join(tmpdir(), 'compare-'));
  const [one, two] = [join(folder, 'one'), join(folder, 'two')];
  expect((await cli(fitArgs(data, one))).code).toBe(0);
  expect((await cli(fitArgs(data, two, '--set', 'learning_rate=0.001'))).code).toBe(0);
  const page = join(folder, 'compare.html');
  const { code, out } = await cli(['compare', one, two, '--output', page]);
  expect(code).toBe(0);
  expect(out).toMatch(/^run +score +/);
  expect(out).toMatch(/learning_rate +0\.02 +0\.001/);
  expect(out).toMatch(/^best: (one|two), exact match \d+\.\d %/m);
  expect(out).toContain(page);
  expect(await readFile(page, 'utf8')).toContain('Comparison of 2 runs');
  const { runs } = JSON.parse((await cli(['compare', one, two, '--json'])).out) as { runs: object[] };
  expect(runs).toMatchObject([{ name: 'one', preset: 'lora' }, { name: 'two' }]);
});

it('needs two runs, and names a folder that is none', async () => {
  const { code, err } = await cli(['compare', 'runs/one', 'runs/one/']);
  expect([code, err]).toEqual([2, expect.stringContaining('expected two or more runs, found runs/one/')]);
  const missing = await cli(['compare', 'runs/one', 'runs/two']);
  expect(missing).toMatchObject({ code: 1, err: expect.stringContaining('runs/one: expected a run folder') });
});
