/** The skill for coding assistants follows agentskills.io, and llms.txt follows llmstxt.org. Their commands run in blocks.spec.ts. */
import { basename, dirname } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { files, read } from '../spec/blocks';

const FIELDS = ['name', 'description', 'license', 'compatibility', 'metadata', 'allowed-tools'];

describe.each(files('skills/*/SKILL.md'))('%s', (path) => {
  const [, front, body] = /^---\n([^]*?)\n---\n([^]*)$/.exec(read(path))!;
  const fields = parse(front) as Record<string, string>;

  it('has the fields of the format, within their limits', () => {
    expect(Object.keys(fields).filter((field) => !FIELDS.includes(field))).toEqual([]);
    expect(fields.name).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
    expect(fields.name).toBe(basename(dirname(path)));
    expect(fields.description.length).toBeLessThanOrEqual(1024);
    expect(fields.compatibility.length).toBeLessThanOrEqual(500);
  });

  it('is short', () => expect(body.split('\n').length).toBeLessThan(150));
});

it('llms.txt has a title, a summary, and lists of links under its headings', () => {
  const [title, summary, ...rest] = read('llms.txt').split('\n').filter(Boolean);
  expect(title).toMatch(/^# \S/);
  expect(summary).toMatch(/^> \S/);
  const lists = rest.slice(rest.findIndex((line) => line.startsWith('## ')));
  for (const line of lists) expect(line).toMatch(/^(## \S|- \[[^\]]+\]\([^)]+\)(: |$))/);
});
