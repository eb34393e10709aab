/** What was made of files, kept until they change. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export type Kept<T> = Map<string, { version: string; made: Promise<T> }>;

/** Names, sizes and times of a folder's weights and settings: a text that changes with them. Empty for a folder that cannot be read. */
export async function versionOf(dir: string): Promise<string> {
  const names = (await readdir(dir).catch(() => [])).filter((name) => /\.(?:safetensors|json)$/.test(name));
  const facts = names.sort().map(async (name) => {
    const { size, mtimeMs } = (await stat(join(dir, name)).catch(() => undefined)) ?? {};
    return [name, size, mtimeMs];
  });
  return JSON.stringify(await Promise.all(facts));
}

/** What was made of `path` in this version; another version takes its place. A failure is tried again. */
export function once<T>(kept: Kept<T>, path: string, version: string, make: () => Promise<T>): Promise<T> {
  const found = kept.get(path);
  if (found?.version === version) return found.made;
  const entry = { version, made: make() };
  kept.set(path, entry);
  entry.made.catch(() => kept.get(path) === entry && kept.delete(path));
  return entry.made;
}
