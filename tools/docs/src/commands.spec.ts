/** Every command that is shown exists, with its options: in blocks, also those that are not run, in texts, and in comments of recipes. */
import { dirname } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  blocksOf,
  commandsInComments,
  commandsInText,
  commandsOf,
  documents,
  files,
  read,
} from '../spec/blocks';
import { wrongWith } from '../spec/check-command';

function shown(path: string): string[] {
  const text = read(path);
  if (!path.endsWith('.md')) return commandsInComments(text);
  const blocks = blocksOf(text, path).filter(({ language }) => language === 'sh');
  return [...blocks.flatMap(({ code }) => commandsOf(code)), ...commandsInText(text)];
}

const sources = [...documents(), ...files('recipes/*.yaml', 'recipes/*/*.mjs')];

describe('the commands shown in', () => {
  it.each(sources.map((path) => [path, shown(path)] as const))('%s exist', (path, commands) => {
    const wrong = commands.flatMap((command) => {
      const reason = wrongWith(command, `${dirname(path)}/`);
      return reason ? [`${command}\n    ${reason}`] : [];
    });
    expect(wrong, `${path}:\n${wrong.join('\n')}`).toEqual([]);
  });
});

it('finds a command, an option, a target, a script and a file that do not exist', () => {
  expect(wrongWith('npx blip2 train')).toBe('no command "blip2 train"');
  expect(wrongWith('blip2 caption a.png --modle x')).toBe('blip2 caption has no option --modle');
  expect(wrongWith('npx blip2 caption a.png --backend none')).toContain('none');
  expect(wrongWith('npx nx run trainer:train')).toBe('nx has no trainer:train');
  expect(wrongWith('npm run no-such')).toBe('no script "no-such" in package.json');
  expect(wrongWith('python tools/no/such.py')).toBe('no file tools/no/such.py');
  expect(wrongWith('blip2fit x')).toBe('unknown program "blip2fit"');
});
