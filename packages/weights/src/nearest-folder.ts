/** The folder that a mistyped path probably means. */
import { existsSync, readdirSync } from 'node:fs';
import { isAbsolute, join, relative, sep } from 'node:path';

/** A path with its folders replaced by the most similar ones that are there, or undefined if one of them has none. */
export function nearestFolder(path: string): string | undefined {
  const root = isAbsolute(path) ? path.slice(0, path.indexOf(sep) + 1) : '';
  let found = root;
  for (const part of relative(root, path).split(sep)) {
    const exact = join(found, part);
    const next = existsSync(exact) ? part : mostSimilar(part, foldersIn(found || '.'));
    if (next === undefined) return undefined;
    found = join(found, next);
  }
  return found;
}

/** Names of the folders in a folder, and of links, which may lead to one. */
export function foldersIn(path: string): string[] {
  try {
    const entries = readdirSync(path, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory() || entry.isSymbolicLink()).map(({ name }) => name);
  } catch {
    return [];
  }
}

/** The name that shares the longest beginning and end with `wanted`, if that is most of both. */
function mostSimilar(wanted: string, names: readonly string[]): string | undefined {
  const rated = names.map((name) => ({ name, share: shared(wanted, name) }));
  const best = rated.sort((a, b) => b.share - a.share || a.name.localeCompare(b.name))[0];
  return best && best.share >= 0.6 ? best.name : undefined;
}

function shared(a: string, b: string): number {
  const [x, y] = [a.toLowerCase(), b.toLowerCase()];
  const shorter = Math.min(x.length, y.length);
  let head = 0;
  while (head < shorter && x[head] === y[head]) head++;
  let tail = 0;
  while (tail < shorter - head && x.at(-1 - tail) === y.at(-1 - tail)) tail++;
  return (head + tail) / Math.max(x.length, y.length);
}
