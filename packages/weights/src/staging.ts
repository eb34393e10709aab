/** Atomic writing: everything goes to a temporary file beside the target, is flushed, then renamed. */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { copyFile, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { WeightsError, reason } from './errors';

/** Writes a text or byte file atomically: after a crash the file has the old or the new content, never a part. */
export async function writeFileAtomic(file: string, content: string | Uint8Array): Promise<void> {
  await withStaged(async (stage) => {
    await stage(file, (handle) => handle.writeFile(content));
  });
}

/**
 * Makes a folder and those above it. Node's `recursive` never ends where a file system makes no folders, as in /proc.
 * @throws the file system's error
 */
export async function makeFolders(dir: string): Promise<void> {
  const made = await mkdir(dir).catch((error: NodeJS.ErrnoException) => error);
  if (!(made instanceof Error) || (await isFolder(dir))) return;
  if (made.code !== 'ENOENT' || dirname(dir) === dir) throw made;
  await makeFolders(dirname(dir));
  await mkdir(dir).catch(async (error: Error) => {
    if (!(await isFolder(dir))) throw error; // another process may have made it
  });
}

const isFolder = (dir: string) =>
  stat(dir).then(
    (info) => info.isDirectory(),
    () => false,
  );

/** Files written by `stage` are renamed together after `work` has succeeded, and removed if it fails. */
export async function withStaged(
  work: (
    stage: (file: string, write: (handle: FileHandle) => Promise<void>) => Promise<void>,
  ) => Promise<void>,
): Promise<void> {
  const pending: { temporary: string; file: string }[] = [];
  try {
    await work(async (file, write) => {
      await removeDeadDrafts(file);
      const temporary = draftOf(file);
      const handle = await open(temporary, 'wx').catch((error: unknown) => {
        throw new WeightsError(`${file}: cannot be written: ${reason(error)}`, undefined, { cause: error });
      });
      pending.push({ temporary, file });
      try {
        await write(handle);
        await handle.sync();
      } finally {
        await handle.close();
      }
    });
    for (const { temporary, file } of pending) await rename(temporary, file);
    for (const folder of new Set(pending.map(({ file }) => dirname(file)))) await syncFolder(folder);
  } catch (error) {
    for (const { temporary } of pending) await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
}

const here = createHash('sha256').update(hostname()).digest('hex').slice(0, 6);
const DRAFT = /^\.(.+)\.([0-9a-f]{6})-(\d+)-\d+\.tmp$/;
let drafts = 0;

/** A new temporary name beside `path`. It tells which process of which host writes it. */
export function draftOf(path: string): string {
  return join(dirname(path), `.${basename(path)}.${here}-${process.pid}-${drafts++}.tmp`);
}

/** Is this the name of a temporary file or folder, of `of` if that is given? */
export function isDraft(name: string, of?: string): boolean {
  const match = DRAFT.exec(name);
  return match !== null && (of === undefined || match[1] === of);
}

/** Removes the temporary files of `file` whose processes were killed. */
export async function removeDeadDrafts(file: string): Promise<void> {
  for (const name of await readdir(dirname(file)).catch(() => [])) {
    const [, of, host, pid] = DRAFT.exec(name) ?? [];
    if (of === basename(file) && host === here && !isRunning(Number(pid)))
      await rm(join(dirname(file), name), { force: true }).catch(() => undefined);
  }
}

/** Does a process with this number exist on this host? */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0); // only tests whether it exists
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/** Copies a file and flushes the copy. */
export async function copySynced(from: string, to: string): Promise<void> {
  await copyFile(from, to);
  const handle = await open(to, 'r+').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EACCES') return undefined; // a copy of a read-only file
    throw error;
  });
  await handle?.sync().finally(() => handle.close());
}

/** Makes renames durable. Does nothing on systems that cannot open a folder (Windows). */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}
