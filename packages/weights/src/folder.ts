/**
 * Folders that are saved whole or not at all: filled under a temporary name, flushed, then renamed. A process that is killed at
 * any time leaves at most temporary folders, which the next one removes.
 */
import { constants } from 'node:fs';
import { access, mkdir, readdir, realpath, rename, rm, rmdir, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { WeightsError } from './errors';
import { lockFile } from './lock';
import { draftOf, isDraft, makeFolders, syncFolder } from './staging';

/** The files of a kind of folder. */
export interface FolderKind {
  /** The file without which the folder cannot be loaded. */
  marker: string;
  /** Files that a save replaces or, if it does not write them, removes. */
  parts: RegExp;
}

/** A model folder in Hugging Face's layout. */
export const MODEL_FOLDER: FolderKind = {
  marker: 'config.json',
  parts: /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/,
};

/**
 * Makes the folder `dir`, which is absent or empty, with the files that `fill` writes into the folder that it is given.
 * @throws WeightsError when the folder holds anything; LockedError when another process is writing it
 */
export async function newFolder<T>(
  dir: string,
  kind: FolderKind,
  fill: (at: string) => Promise<T>,
): Promise<T> {
  await requireFree(dir);
  return replaceFolder(dir, kind, async (at) => {
    const result = await fill(at);
    await requireFree(dir);
    return result;
  });
}

/**
 * Like `newFolder`, but replaces the files of an earlier save; other files stay. The marker is deleted first and written last,
 * so old and new files are never loaded together.
 * @throws LockedError when another process is writing the folder
 */
export async function replaceFolder<T>(
  dir: string,
  kind: FolderKind,
  fill: (at: string) => Promise<T>,
): Promise<T> {
  const target = await realpath(dir).catch(() => resolve(dir));
  await makeFolders(dirname(target));
  const canRename = !(await isFixed(target));
  // Where the folder itself cannot be renamed, the temporary folder is inside it.
  const place = canRename ? target : join(target, 'new');
  const release = await lockFile(join(dirname(place), `.${basename(place)}.lock`));
  try {
    for (const name of await readdir(dirname(place)))
      if (isDraft(name, basename(place)))
        await rm(join(dirname(place), name), { recursive: true }).catch(() => undefined);
    const draft = draftOf(place);
    try {
      await mkdir(draft);
      const result = await fill(draft);
      await syncFolder(draft);
      if (canRename && (await isFree(target))) {
        await rmdir(target).catch(() => undefined); // Windows renames to no folder that exists
        await rename(draft, target);
      } else await moveFiles(draft, target, kind);
      await syncFolder(dirname(target));
      return result;
    } finally {
      await rm(draft, { recursive: true, force: true }).catch(() => undefined);
    }
  } finally {
    await release();
  }
}

async function requireFree(dir: string): Promise<void> {
  if (await isFree(dir)) return;
  throw new WeightsError(`${dir}: expected a new or empty folder, so that nothing is overwritten`);
}

/** Nothing is there, or only what a killed process left: files moved in while the temporary folder is still there. */
async function isFree(dir: string): Promise<boolean> {
  const names = await readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  return names.every((name) => name === '.new.lock') || names.some((name) => isDraft(name, 'new'));
}

/** A folder that cannot be renamed: a mount point, such as a container's volume, or one in a folder that is not writable. */
async function isFixed(dir: string): Promise<boolean> {
  const info = await stat(dir).catch(() => undefined);
  if (!info) return false;
  if (info.dev !== (await stat(dirname(dir))).dev) return true;
  return access(dirname(dir), constants.W_OK).then(
    () => false,
    () => true,
  );
}

async function moveFiles(from: string, to: string, { marker, parts }: FolderKind): Promise<void> {
  const written = await readdir(from);
  await rm(join(to, marker), { force: true });
  for (const name of await readdir(to))
    if (parts.test(name) && !written.includes(name)) await rm(join(to, name));
  for (const name of written) if (name !== marker) await moveEntry(join(from, name), join(to, name));
  await syncFolder(to);
  if (written.includes(marker)) await rename(join(from, marker), join(to, marker));
  await syncFolder(to);
}

/** A folder replaces the one of that name; unlike a file, it cannot be renamed over it. */
async function moveEntry(from: string, to: string): Promise<void> {
  if ((await stat(from)).isDirectory()) await rm(to, { recursive: true, force: true });
  await rename(from, to);
}
