import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { listCases, mutations, readCase } from '@blip2/parity';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const text = readFileSync(`${root}docs/parity.md`, 'utf8');
const coverage = text.slice(text.indexOf('## Coverage'), text.indexOf('## Sensitivity'));
const rows = [...coverage.matchAll(/^\|(.*)\|$/gm)]
  .map(([, line]) => line.split(/(?<!\\)\|/).map((cell) => cell.trim()))
  .filter(([first]) => !/^(feature|option|-+)$/.test(first));
const cases = await Promise.all((await listCases(`${root}tools/parity/cases`)).map(readCase));

describe('docs/parity.md', () => {
  it('has a table', () => expect(rows.length).toBeGreaterThan(35));

  it.each(rows.map((cells) => [cells[0], cells.at(-1)!]))('%s: its proof exists', (_, proof) => {
    const names = [...proof.matchAll(/`([^`]+)`/g)].map(([, name]) => name);
    expect(names.length).toBeGreaterThan(0);
    for (const name of names) {
      const [at, rung] = name.split(' / ');
      const exists = rung
        ? cases.some((of) => of.name === at && of.checks.some((check) => check.rung === rung))
        : existsSync(root + name);
      expect(exists, name).toBe(true);
    }
  });

  it('shows every deliberate mistake, and that it is caught', () => {
    const section = text.slice(text.indexOf('## Sensitivity'));
    const listed = [...section.matchAll(/^\| (.*?) +\| (\d+) of \d+/gm)];
    expect(listed.map(([, name]) => name)).toEqual(mutations.map(({ name }) => name));
    for (const [, name, red] of listed) expect(Number(red), name).toBeGreaterThan(0);
  });
});
