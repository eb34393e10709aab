/** What it means for a run that the disk is full, read-only or broken. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { checkpointDir, listCheckpoints } from './checkpoint';
import { RunFolderError } from './folder';

/** What file systems say when they cannot write, on any platform. */
const DISK = [
  ...['ENOSPC', 'EFBIG', 'EROFS', 'EACCES', 'EPERM', 'EIO', 'EBUSY', 'ENOTEMPTY', 'ETXTBSY'],
  'EXDEV',
];

/** Node has no name for ESTALE, EDQUOT, EUCLEAN and other errors of file systems: their code is "Unknown system error -116". */
const isDisk = (code: string) => DISK.includes(code) || code.startsWith('Unknown system error');

/** Work that writes files of the run in `dir`. @throws RunFolderError for a disk that cannot be written and for a folder that is gone; all else as it is */
export async function onDisk<T>(dir: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RunFolderError) throw error;
    const code = codeOf(error) ?? '';
    const { message } = error as Error;
    if (code === 'ENOENT' && !existsSync(dir))
      throw new RunFolderError(`${dir}: the folder was removed or moved during the run: ${message}`, {
        cause: error,
      });
    if (!isDisk(code)) throw error;
    const kept = await whatIsKept(dir);
    throw new RunFolderError(
      `${dir}: a file of the run cannot be written: ${message}. ${kept.found}; make room, or make the folder writable, and ${kept.next}.`,
      { cause: error },
    );
  }
}

/** A run whose folder is there goes on with --resume, from its beginning if it must. */
async function whatIsKept(dir: string): Promise<{ found: string; next: string }> {
  const last = await lastCheckpoint(dir);
  const next = existsSync(join(dir, 'config.yaml')) ? 'continue with --resume' : 'start again';
  return {
    found: last ? `Nothing up to the last checkpoint is lost. ${last}` : 'There is no checkpoint yet',
    next,
  };
}

/** The sentence about the newest checkpoint; nothing when there is none, or none can be seen. */
export async function lastCheckpoint(dir: string): Promise<string | undefined> {
  const [step] = await listCheckpoints(dir).catch(() => []);
  return step === undefined ? undefined : `The last one is ${checkpointDir(dir, step)}`;
}

/** The file system's code, also of an error that another one explains. */
function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  return (error as NodeJS.ErrnoException).code ?? codeOf(error.cause);
}
