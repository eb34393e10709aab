import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { listCases, readCase } from '@blip2/parity';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const text = readFileSync(`${root}docs/parity.md`, 'utf8');
const coverage = text.slice(text.indexOf('## Coverage'), text.indexOf('## Sensitivity'));
const rows = [...coverage.matchAll(/^\|(.*)\|$/gm)]
  .map(([, line]) => line.split(/(?<!\\)\|/).map((cell) => cell.trim()))
  .filter(([first]) => !/^(feature|option|-+)$/.test(first));
const cases = await Promise.all((await listCases(`${root}tools/parity/cases`)).map(readCase));
const checks = cases.flatMap((of) => of.checks.map(({ rung }) => ({ at: of.name, rung })));

/** Whether the file defines a test, a suite or a row of a table with this title, or a Python function of this name. */
function defines(file: string, title: string): boolean {
  if (!existsSync(root + file)) return false;
  const source = readFileSync(root + file, 'utf8');
  if (file.endsWith('.py')) return source.includes(`\ndef ${title}(`);
  return ["'", '"', '`'].some((quote) => source.includes(quote + title + quote));
}

describe('docs/parity.md', () => {
  it('has a table', () => expect(rows.length).toBeGreaterThan(35));

  it.each(rows.map((cells) => [cells[0], cells.at(-1)!]))('%s: its proof exists', (_, proof) => {
    const names = [...proof.matchAll(/`([^`]+)`/g)].map(([, name]) => name);
    expect(names.length).toBeGreaterThan(0);
    for (const name of names) {
      const [, place, title] = /^(.*?) \/ (.*)$/.exec(name) ?? [];
      const exists = place?.includes('/')
        ? defines(place, title)
        : checks.some(({ at, rung }) => at === place && rung === title);
      expect(exists, `expected a test "file / title" or a check "case / rung", found ${name}`).toBe(true);
    }
  });
});
