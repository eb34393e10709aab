/** The TypeScript blocks of all documents pass the strict type check, against the declarations that users get. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { beforeAll, expect, it } from 'vitest';
import { blocksOf, documents, read, ROOT } from '../spec/blocks';
import { buildCommand, makeFolder } from '../spec/folder';

const blocks = documents()
  .flatMap((path) => blocksOf(read(path), path))
  .filter(({ language }) => language === 'ts');
const problems = new Map<string, string[]>();

const OPTIONS: ts.CompilerOptions = {
  module: ts.ModuleKind.NodeNext,
  target: ts.ScriptTarget.ES2022,
  lib: ['lib.es2023.d.ts', 'lib.dom.d.ts'],
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  types: ['node'],
  typeRoots: [join(ROOT, 'node_modules/@types')],
};

beforeAll(() => {
  buildCommand();
  const folder = makeFolder();
  const sources = new Map(blocks.map(({ at }, i) => [join(folder, '.blocks', `${i}.mts`), at]));
  [...sources.keys()].forEach((file, i) => writeFileSync(file, `${blocks[i].code}export {};\n`));
  const found = ts.getPreEmitDiagnostics(ts.createProgram([...sources.keys()], OPTIONS));
  for (const { file, start, messageText } of found) {
    const at = sources.get(file?.fileName ?? '') ?? 'all';
    const line = file ? file.text.slice(0, start).split('\n').length : 0;
    const text = `line ${line}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
    problems.set(at, [...(problems.get(at) ?? []), text]);
  }
}, 120_000);

it.each(blocks.map(({ at }) => at))('%s', (at) => expect(problems.get(at) ?? []).toEqual([]));

it('has no other problem', () => expect(problems.get('all') ?? []).toEqual([]));
