import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { listCases, readCase } from './case-file';
import { runCase } from './run-case';
import { formatSensitivity, sensitivity } from './sensitivity';

const folders = await listCases(fileURLToPath(new URL('../cases', import.meta.url)));
const cases = await Promise.all(folders.map(readCase));
const page = readFileSync(new URL('../../../docs/parity.md', import.meta.url), 'utf8');
const cellsOf = (table: string) =>
  [...table.matchAll(/^\| (.*) \|$/gm)]
    .map(([, row]) => row.split('|').map((cell) => cell.trim()))
    .filter(([first]) => !first.startsWith('---'));

describe('mutations', () => {
  beforeAll(() => useBackend('auto'));

  it('are caught by as many checks as docs/parity.md lists, and are undone', async () => {
    const results = await sensitivity(cases);
    expect(results.filter(({ caught }) => caught.length === 0)).toEqual([]);
    expect(cellsOf(formatSensitivity(results))).toEqual(cellsOf(page.slice(page.indexOf('## Sensitivity'))));
    for (const of of cases) expect((await runCase(of)).filter(({ ok }) => !ok)).toEqual([]);
  }, 600_000);
});
