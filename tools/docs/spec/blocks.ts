/** The documents of the repository, their fenced blocks, and commands named in their text. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

export interface Block {
  /** file and line, as `docs/training.md:7` */
  at: string;
  language: string;
  code: string;
  /** why it is not run, from a comment in front of it: `<!-- not run: REASON -->` */
  notRun?: string;
}

/** Every committed Markdown file but changelogs, and new ones that git does not ignore; paths from the root. */
export function documents(): string[] {
  return files('*.md').filter((path) => !path.endsWith('CHANGELOG.md'));
}

/** Committed and new files of the repository that match a pattern of git; paths from the root. */
export function files(...patterns: string[]): string[] {
  const args = ['ls-files', '--cached', '--others', '--exclude-standard', '--', ...patterns];
  const listed = execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' });
  return [...new Set(listed.split('\n').filter(Boolean))].sort();
}

export const read = (path: string): string => readFileSync(ROOT + path, 'utf8');

/** The fenced blocks of a Markdown text, in order. */
export function blocksOf(text: string, path: string): Block[] {
  const lines = text.split('\n');
  const blocks: Block[] = [];
  for (let i = 0; i < lines.length; i++) {
    const [, indent, fence, language] = /^( *)(`{3,})(.*)$/.exec(lines[i]) ?? [];
    if (fence === undefined) continue;
    const end = lines.findIndex((line, at) => at > i && line.trim() === fence);
    if (end < 0) throw new Error(`${path}:${i + 1}: expected the end of the block, found none`);
    const code = lines.slice(i + 1, end).map((line) => line.slice(indent.length));
    blocks.push({
      at: `${path}:${i + 1}`,
      language,
      code: `${code.join('\n')}\n`,
      notRun: reasonAbove(lines, i),
    });
    i = end;
  }
  return blocks;
}

/** The reason of `<!-- not run: REASON -->`, if that is what is directly above a line, blank lines aside. */
function reasonAbove(lines: string[], at: number): string | undefined {
  const above = lines.slice(0, at).findLast((line) => line.trim() !== '');
  return /^\s*<!-- not run: (.+) -->$/.exec(above ?? '')?.[1];
}

/** Commands in backquotes, in the text of a document. */
export function commandsInText(text: string): string[] {
  const prose = text.replace(/^( *)(`{3,})[^]*?^\1\2$/gm, '');
  return [...prose.matchAll(/`((?:npx |npm |blip2 |node |python )[^`]+)`/g)].map(([, command]) =>
    command.replace(/\s+/g, ' '),
  );
}

/** Commands in the comments of a source or settings file: what is indented by three spaces or more. */
export function commandsInComments(text: string): string[] {
  const joined = text.replace(/\\\n(?:#|\/\/| \*) */g, '');
  return [...joined.matchAll(/^(?:#|\/\/| \*) {3,}((?:npx|npm|blip2|node|python) .*)$/gm)].map(
    ([, command]) => command.replace(/ {3,}.*$/, ''),
  );
}

/** The commands of a shell block, one by one, without comments; lines that end in a backslash are joined. */
export function commandsOf(code: string): string[] {
  return code
    .replace(/\\\n\s*/g, '')
    .split('\n')
    .map((line) => line.replace(/(^|\s)#.*$/, '').trim())
    .filter((line) => line !== '' && !/^(for |do$|done$)/.test(line))
    .flatMap((line) => line.split(/ (?:&&|\||;) /));
}
