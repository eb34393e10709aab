/** What lies in the cache folder: the features of each key, and weights rounded to int8. They are listed, and removed when unused. */
import type { Stats } from 'node:fs';
import { lstat, readdir, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { LockedError, lockFile, makeFolders, openWeights, readJsonFile } from '@blip2/weights/node';

export interface CacheEntry {
  path: string;
  kind: 'image_features' | 'query_embeds' | 'hidden_states' | 'int8';
  bytes: number;
  /** with stored features; 0 for weights */
  pictures: number;
  /** the model that it was made with, if that is known */
  model?: string;
  last_used: Date;
  /** by a running process; unknown for weights, which a process keeps mapped after they are removed */
  in_use: boolean;
}

const FEATURES = /^(image_features|query_embeds|hidden_states)-[0-9a-f]{32}$/;
/** Rounded weights, and factors that they are rounded with. */
const INT8 = /^(int8|int4|smoothing)-[0-9a-f]{32}\.safetensors$/;
/** A folder of features that was being removed. */
const REMOVED = /^\.removed-\d+-(image_features|query_embeds|hidden_states)-[0-9a-f]{32}$/;
/** The entry of a picture; those of its texts have other names. */
const PICTURE = /^[0-9a-f]{64}\.f32$/;

/** Processes that use a folder of features each have a lock there. */
const USERS = 'users';

/**
 * Marks a folder of features as in use until the returned function is called, or the process ends. Marks of killed processes are
 * removed.
 */
export async function useFeatures(dir: string): Promise<() => Promise<void>> {
  const users = join(dir, USERS);
  await makeFolders(users);
  await isUsed(dir);
  return lockFile(join(users, `${hostname()}-${process.pid}-${uses++}.lock`));
}

let uses = 0;

/**
 * The entries of a cache folder, the least recently used first; none if there is no such folder.
 * @throws the file system's error
 */
export async function cacheEntries(root: string): Promise<CacheEntry[]> {
  const found: CacheEntry[] = [];
  for (const name of await namesIn(root)) {
    const path = join(root, name);
    const info = await lstat(path).catch(() => undefined);
    const kind = (FEATURES.exec(name)?.[1] ?? REMOVED.exec(name)?.[1]) as CacheEntry['kind'] | undefined;
    if (info?.isDirectory() && kind) found.push(await featuresEntry(path, kind, info));
    if (info?.isFile() && INT8.test(name)) found.push(await int8Entry(path, info));
  }
  return found.sort((a, b) => Number(a.last_used) - Number(b.last_used));
}

/** Removes an entry. @returns false if a process uses it */
export async function removeEntry({ path, kind }: CacheEntry): Promise<boolean> {
  if (kind === 'int8') {
    const error = await rm(path, { force: true }).catch((error: NodeJS.ErrnoException) => error);
    if (error && !['EBUSY', 'EPERM'].includes(error.code!)) throw error;
    if (!error) await rm(path.replace(/\.safetensors$/, '.checked'), { force: true });
    return !error; // Windows keeps a file that is mapped
  }
  if (await isUsed(path)) return false;
  // Renamed first, so that a run that starts meanwhile makes a new folder.
  const name = basename(path);
  const away = REMOVED.test(name) ? path : join(dirname(path), `.removed-${process.pid}-${name}`);
  if (away !== path) await rename(path, away);
  await rm(away, { recursive: true, force: true });
  return true;
}

async function featuresEntry(path: string, kind: CacheEntry['kind'], info: Stats): Promise<CacheEntry> {
  const key = join(path, 'key.json');
  const about = (await readJsonFile(key).catch(() => ({}))) as { model?: unknown };
  const opened = await lstat(key).catch(() => info); // written again by each run that opens it
  const sizes = await sizesIn(path);
  return {
    path,
    kind,
    bytes: sizes.bytes,
    pictures: sizes.pictures,
    model: typeof about.model === 'string' ? about.model : undefined,
    last_used: opened.mtime,
    in_use: await isUsed(path),
  };
}

async function sizesIn(dir: string): Promise<{ bytes: number; pictures: number }> {
  const sum = { bytes: 0, pictures: 0 };
  for (const entry of await readdir(dir, { withFileTypes: true }).catch(() => [])) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) {
      const inner = await sizesIn(path);
      sum.bytes += inner.bytes;
      sum.pictures += inner.pictures;
    } else {
      sum.bytes += (await lstat(path).catch(() => undefined))?.size ?? 0;
      if (PICTURE.test(entry.name)) sum.pictures++;
    }
  }
  return sum;
}

async function int8Entry(path: string, { size, mtime }: Stats): Promise<CacheEntry> {
  const reader = await openWeights(path).catch(() => undefined);
  const model = reader?.metadata['model'];
  await reader?.close();
  const mark = await lstat(path.replace(/\.safetensors$/, '.checked')).catch(() => undefined); // written at each use
  const last_used = mark?.mtime ?? mtime;
  return { path, kind: 'int8', bytes: size, pictures: 0, model, last_used, in_use: false };
}

/** Whether a running process has its lock there. Locks of processes that have ended are removed. */
async function isUsed(dir: string): Promise<boolean> {
  let used = false;
  for (const name of await namesIn(join(dir, USERS))) {
    if (!name.endsWith('.lock')) continue;
    try {
      const release = await lockFile(join(dir, USERS, name));
      await release();
    } catch (error) {
      if (!(error instanceof LockedError)) throw error;
      used = true;
    }
  }
  return used;
}

const namesIn = (dir: string) =>
  readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
