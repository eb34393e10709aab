/** Links between documents lead to files and headings that exist. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path/posix';
import { describe, expect, it } from 'vitest';
import { documents, read, ROOT } from '../spec/blocks';

/** Anchors of a document's headings, as GitHub makes them. */
function anchors(path: string): string[] {
  const seen = new Map<string, number>();
  return [...read(path).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => {
    const name = heading
      .toLowerCase()
      .replace(/\]\([^)]*\)/g, '')
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/\s/g, '-');
    const times = seen.get(name) ?? 0;
    seen.set(name, times + 1);
    return times === 0 ? name : `${name}-${times}`;
  });
}

/** What is wrong with a link from a document, or undefined. */
function wrongLink(from: string, link: string): string | undefined {
  const [path, anchor] = link.split('#');
  const target = path === '' ? from : join(from, '..', path);
  if (!existsSync(ROOT + target)) return `${link}: no such file`;
  if (anchor === undefined || statSync(ROOT + target).isDirectory()) return undefined;
  return anchors(target).includes(anchor) ? undefined : `${link}: no such heading`;
}

describe('the links of', () => {
  it.each([...documents(), 'llms.txt'])('%s', (path) => {
    const text = read(path).replace(/^( *)(`{3,})[^]*?^\1\2$/gm, '');
    const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link);
    const own = links.filter((link) => !/^[a-z]+:/.test(link));
    expect(own.flatMap((link) => wrongLink(path, link) ?? [])).toEqual([]);
  });

  it('notices a missing file and a missing heading', () => {
    expect(wrongLink('docs/data.md', 'nothing.md')).toBe('nothing.md: no such file');
    expect(wrongLink('docs/data.md', 'data.md#nothing')).toBe('data.md#nothing: no such heading');
    expect(wrongLink('docs/data.md', '../README.md#packages')).toBeUndefined();
  });
});
