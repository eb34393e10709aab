/** The TypeScript blocks of all documents pass the strict type check. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { blocksOf, documents, read, ROOT } from '../spec/blocks';
import { makeFolder, run } from '../spec/folder';

const blocks = documents()
  .flatMap((path) => blocksOf(read(path), path))
  .filter(({ language }) => language === 'ts');
let printed: string;

const TSCONFIG = {
  extends: join(ROOT, 'tsconfig.base.json'),
  compilerOptions: {
    noUnusedLocals: false,
    lib: ['ES2023', 'DOM'],
    typeRoots: [join(ROOT, 'node_modules/@types')],
  },
  include: ['.blocks/*'],
};

beforeAll(async () => {
  const folder = makeFolder();
  blocks.forEach(({ code }, i) => writeFileSync(join(folder, `.blocks/${i}.ts`), `${code}export {};\n`));
  writeFileSync(join(folder, 'tsconfig.blocks.json'), JSON.stringify(TSCONFIG));
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  const args = [tsc, '--pretty', 'false', '-p', 'tsconfig.blocks.json'];
  printed = (await run(folder, process.execPath, args)).output;
}, 900_000);

it.each(blocks.map(({ at }, i) => [at, i] as const))('%s', (_, i) => {
  const problems = printed.split('\n').filter((line) => line.includes(`.blocks/${i}.ts(`));
  expect(problems.join('\n')).toBe('');
});

it('has no other problem', () =>
  expect(printed.split('\n').filter((line) => line !== '' && !line.includes('.blocks/'))).toEqual([]));
