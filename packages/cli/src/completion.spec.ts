/** What the Tab key offers, as a table and in a real bash. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { completionOf } from './commands/completion';
import { createProgram } from './run';
import { cli, tinyData } from '../spec/testing';

const complete = (line: string) => {
  const { items, files } = completionOf(createProgram(), line.split(' '));
  return { names: items.map(({ name }) => name), files };
};

describe('what follows a command line', () => {
  it.each<[string, string[], boolean]>([
    ['c', ['caption', 'compare', 'cache', 'completion'], false],
    ['cache ', ['list', 'prune', 'help'], false],
    ['fit --image-', ['--image-folder', '--image-column', '--image-orientation'], false],
    ['fit --preset lora', ['lora', 'lora+qformer'], false],
    ['caption a.png --backend n', ['native'], false],
    ['caption a.png --num-beams ', [], false],
    ['caption ', [], true],
    ['fit run.yaml --data photos --output ', [], true],
    ['completion ', ['bash', 'zsh', 'fish', 'pwsh'], false],
  ])('%s', (line, names, files) => {
    const found = complete(line);
    expect(found.names).toEqual(expect.arrayContaining(names));
    expect(found.files).toBe(files);
    if (!line.endsWith(' '))
      expect(found.names.every((name) => name.startsWith(line.split(' ').at(-1)!))).toBe(true);
  });

  it('the server of the scripts is not offered', () => {
    expect(complete('').names).toContain('fit');
    expect(complete('').names).not.toContain('completion-server');
  });
});

describe('the scripts', () => {
  it.each(['bash', 'zsh', 'fish', 'pwsh'])('%s: one is printed', async (shell) => {
    const { code, out, err } = await cli(['completion', shell]);
    expect([code, err]).toEqual([0, '']);
    expect(out).toContain('completion-server');
  });

  it('bash: commands, options and files are completed', async () => {
    const folder = await tinyData();
    const bin = await bundle(new URL('bin.ts', import.meta.url));
    const script = (await cli(['completion', 'bash'])).out.replaceAll(process.argv[1], bin);
    const file = join(folder, 'completion.bash');
    const press = `press() { COMP_LINE="$*"; COMP_POINT=\${#COMP_LINE}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));
      COMPREPLY=(); _blip2_completion; echo "\${COMPREPLY[@]}"; }`;
    await writeFile(file, `${script}\n${press}\npress blip2 eval\npress blip2 fit --prese\n`);
    const { stdout } = await promisify(execFile)('bash', [file], { cwd: folder });
    expect(stdout.trim().split('\n')).toEqual(['evaluate', '--preset']);
  }, 60_000);
});
