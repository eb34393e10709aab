/** What it means for a run that the disk is full, read-only or broken. */
import { checkpointDir, listCheckpoints } from './checkpoint';
import { RunFolderError } from './run-folder';

/** What file systems say when they cannot write, on any platform. */
const DISK = ['ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EACCES', 'EPERM', 'EIO'];

/** Work that writes files of the run in `dir()`. @throws RunFolderError for a disk that cannot be written; all else as it is */
export async function onDisk<T>(dir: () => string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RunFolderError || !DISK.includes(codeOf(error) ?? '')) throw error;
    const kept = await lastCheckpoint(dir());
    const rest = kept
      ? `Nothing up to the last checkpoint is lost. ${kept}; make room, or make the folder writable, and continue with --resume.`
      : 'There is no checkpoint yet; make room, or make the folder writable, and start again.';
    const { message } = error as Error;
    throw new RunFolderError(`${dir()}: a file of the run cannot be written: ${message}. ${rest}`, {
      cause: error,
    });
  }
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
