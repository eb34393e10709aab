/**
 * Every fenced block of every document runs as printed, page by page in order, in a folder like a fresh checkout; pages other than
 * the README continue with the data and the run that the README makes. A block with `<!-- not run: REASON -->` in front is checked
 * in commands.spec.ts only. The README that `fit` writes into the adapter's folder is one of the documents.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig } from '@blip2/trainer';
import { beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import type { Block } from '../spec/blocks';
import { blocksOf, documents, read } from '../spec/blocks';
import { buildCommand, findPython, makeFolder, runBlock } from '../spec/folder';

const CARD = 'runs/drawings/adapter/README.md';
const LANGUAGES = ['sh', 'ts', 'python', 'yaml', 'json', 'jsonc', 'text', 'mermaid'];

const pages = documents().map((path) => ({ path, blocks: blocksOf(read(path), path) }));
const python = findPython();
let first: string;

/** Runs the blocks of a page in order; the lines of a `text` block must be in what was printed before it on the page. */
async function follow(folder: string, blocks: Block[]): Promise<void> {
  let printed = '';
  for (const block of blocks) {
    if (block.notRun) continue;
    if (block.language === 'text') expectLines(block, printed);
    if (!['sh', 'ts', 'python'].includes(block.language)) continue;
    if (block.language === 'python' && !python) continue;
    printed += await runBlock(folder, block, python ?? '');
  }
}

/** `…` in a line stands for anything. */
function expectLines({ at, code }: Block, printed: string): void {
  const lines = printed.split('\n').map((line) => line.trim());
  for (const line of code.trim().split('\n')) {
    const found = lines.some((one) => matches(line.trim(), one));
    expect(found, `${at}: expected the line "${line}" to be printed, found\n${printed}`).toBe(true);
  }
}

function matches(shown: string, line: string): boolean {
  const parts = shown.split('…').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`).test(line);
}

beforeAll(async () => {
  await buildCommand();
  first = makeFolder();
  await follow(first, pages.find(({ path }) => path === 'README.md')!.blocks);
}, 900_000);

it('knows the language of every block', () => {
  for (const { at, language } of pages.flatMap(({ blocks }) => blocks))
    expect(LANGUAGES, `${at}: the language of the block`).toContain(language);
});

describe('the blocks of', () => {
  const runnable = ({ language, notRun }: Block) => !notRun && ['sh', 'ts', 'python'].includes(language);
  const more = pages.filter(({ path, blocks }) => path !== 'README.md' && blocks.some(runnable));

  it.concurrent.each(more)('$path run', ({ blocks }) => follow(makeFolder(first), blocks), 900_000);

  it.concurrent(
    `${CARD} run`,
    async () => {
      const blocks = blocksOf(readFileSync(join(first, CARD), 'utf8'), CARD);
      expect(blocks.map(({ language }) => language)).toEqual(['python', 'ts']);
      await follow(makeFolder(first), blocks);
    },
    900_000,
  );

  it.skipIf(!python)('Python run, where torch, transformers and peft are installed', () => {
    const blocks = pages.flatMap(({ blocks }) => blocks).filter(({ language }) => language === 'python');
    expect(blocks.length).toBeGreaterThan(0);
  });
});

describe('settings in', () => {
  const settings = pages.flatMap(({ blocks }) => blocks.filter(({ language }) => language === 'yaml'));

  it.each(settings)('$at are accepted', ({ code }) => {
    const given = parse(code) as Record<string, unknown>;
    expect(() => parseConfig({ model: 'model', data: 'data', ...given })).not.toThrow();
  });

  it.each(pages.flatMap(({ blocks }) => blocks.filter(({ language }) => language === 'json')))(
    '$at are JSON',
    ({ code }) => expect(() => JSON.parse(code)).not.toThrow(),
  );
});
