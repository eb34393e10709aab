/** What a folder holds that can be chosen: folders, data sets, models, runs. */
import type { Dirent } from 'node:fs';
import { existsSync, opendirSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { FileEntry, Listing } from './api';
import { PathError } from './folders';
import type { Folders } from './folders';

const DATA = /\.(?:jsonl|ndjson|csv|tsv|json|parquet|tar|tgz)$/i;
const NO_DATA =
  /^(?:package(?:-lock)?|tsconfig.*|config|tokenizer.*|.*_config|results|environment|.*\.schema)\.json$/i;
const MOST = 500;

export async function listFolder(folders: Folders, path: string): Promise<Listing> {
  const dir = await folders.inside(path);
  const found = await readdir(dir, { withFileTypes: true }).catch(() => {
    throw new PathError(`${path}: expected a folder that can be read`, 400);
  });
  const entries = found
    .flatMap((entry) => entryOf(dir, entry))
    .sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
  return {
    path: folders.shown(dir),
    parent: folders.roots.includes(dir) ? undefined : folders.shown(dirname(dir)),
    entries: entries.slice(0, MOST).map((entry) => ({ ...entry, path: folders.shown(entry.path) })),
    more: Math.max(0, entries.length - MOST),
  };
}

/** Symbolic links are followed when they are opened, and checked then. */
function entryOf(dir: string, entry: Dirent): FileEntry[] {
  const { name } = entry;
  if (name.startsWith('.') || name === 'node_modules') return [];
  const path = join(dir, name);
  if (entry.isDirectory()) return [{ name, path, kind: kindOf(path) }];
  return DATA.test(name) && !NO_DATA.test(name) ? [{ name, path, kind: 'data' }] : [];
}

function kindOf(folder: string): FileEntry['kind'] {
  const has = (name: string) => existsSync(join(folder, name));
  if (has('config.yaml') && has('environment.json')) return 'run';
  if (has('config.json') && (has('tokenizer.json') || has('preprocessor_config.json'))) return 'model';
  const data = ['metadata.jsonl', 'metadata.csv', 'metadata.parquet'];
  const inSplits = (name: string) => has(join('train', name));
  return data.some((name) => has(name) || inSplits(name)) || hasSidecars(folder) ? 'data' : 'folder';
}

/** Names of a folder that are looked at. */
const MOST_NAMES = 64;
const PICTURE = /\.(?:jpe?g|png|webp|gif|tiff?|avif|bmp)$/i;

/** Whether there is a picture with a text of the same name beside it, among the first names. */
function hasSidecars(folder: string): boolean {
  let dir;
  try {
    dir = opendirSync(folder);
    for (let i = 0; i < MOST_NAMES; i++) {
      const name = dir.readSync()?.name;
      if (name === undefined) break;
      if (PICTURE.test(name) && existsSync(join(folder, name.replace(PICTURE, '.txt')))) return true;
    }
    return false;
  } catch {
    return false; // a folder that cannot be read
  } finally {
    dir?.closeSync();
  }
}
