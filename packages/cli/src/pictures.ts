/** The pictures that arguments name: files, folders, quoted patterns, and a list on standard input. */
import { statSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { PICTURE_NAME, picturesBelow } from '@blip2/data-captions';
import { glob } from 'tinyglobby';
import { UsageError } from './errors';
import type { Io } from './io';

/** Paths of pictures, each once, in the order of the arguments. A listed file may be missing; the others exist. @throws Error */
export async function findPictures(args: string[], io: Io): Promise<string[]> {
  const missing: string[] = [];
  const found: string[] = [];
  for (const arg of args) {
    const pictures = arg === '-' ? await listed(io) : await picturesAt(arg);
    if (typeof pictures === 'string') missing.push(pictures);
    else for (const picture of pictures) found.push(picture);
  }
  if (missing.length > 0) throw new Error(missing.join('\n'));
  return [...new Set(found)];
}

/** The pictures of one argument, or why there are none. */
async function picturesAt(arg: string): Promise<string[] | string> {
  if (/^[a-z][a-z\d+.-]+:\/\//i.test(arg))
    return `${arg}: expected a file, found an address; download it first, such as with: curl -LO ${arg}`;
  const info = statOf(arg);
  if (info && !info.isDirectory()) return [arg];
  const pictures = info
    ? picturesBelow(arg)
    : /[*?[{]/.test(arg)
      ? await matching(arg, PICTURE_NAME)
      : undefined;
  if (!pictures) return `${arg}: there is no such image file or folder`;
  if (pictures.length > 0) return pictures;
  return `${arg}: expected pictures (.jpg, .png, .webp, …), found none${info ? ' in it or below it' : ' that match'}`;
}

/** Files that match a pattern and have such a name, in the order of their names. */
export async function matching(pattern: string, name: RegExp): Promise<string[]> {
  const posix = process.platform === 'win32' ? pattern.replaceAll('\\', '/') : pattern;
  const files = await glob(posix, {
    absolute: isAbsolute(posix),
    expandDirectories: false,
    followSymbolicLinks: false,
  });
  return files.filter((file) => name.test(file)).sort();
}

/** One path per line, or ended by zero bytes as `find -print0` writes them. @throws UsageError for an empty list */
async function listed(io: Io): Promise<string[]> {
  const text = await io.stdin();
  const paths = text.includes('\0') ? text.split('\0') : text.split(/\r?\n/);
  const pictures = paths.filter((path) => path.trim() !== '');
  if (pictures.length > 0) return pictures;
  throw new UsageError('-: expected paths of pictures on standard input, one per line, found none');
}

/** Undefined for a path that does not exist or is no valid path. */
export function statOf(path: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
