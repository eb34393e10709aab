/** One file of the hub's cache: locked, checked before a byte is kept, continued after an interruption, renamed when right. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { WeightsError } from './errors';
import type { Answer, FetchLimits } from './hub-fetch';
import { RefusedError, ask, bodyOf, describe, isTemporary, withRetries } from './hub-fetch';
import { LockedError, lockFile } from './lock';
import { makeFolders, syncFolder } from './staging';

/** A file of a repository: the content's own checksum is its name in the cache. */
export interface RemoteFile {
  path: string;
  size: number;
  /** of the content (LFS), or of git's blob */
  hash: string;
  algorithm: 'sha256' | 'git-sha1';
}

export interface Download extends FetchLimits {
  file: RemoteFile;
  /** where it is: names the file in errors */
  where: string;
  url: string;
  headers: Record<string, string>;
  /** called with the number of bytes that are there */
  onBytes: (done: number) => void;
  /** called once if another process downloads the file */
  onWait?: (holder: string) => void;
}

/** A download that gains less than this between two failures is not worth another three attempts. */
const PROGRESS = 2 ** 20;

/**
 * Downloads a file to `blob`, unless another process does so meanwhile.
 * @returns whether this process downloaded it
 * @throws WeightsError if the connection breaks down (what is there is kept), or what arrives is not the file (nothing is kept)
 */
export async function downloadBlob(blob: string, download: Download): Promise<boolean> {
  await makeFolders(dirname(blob));
  const incomplete = `${blob}.incomplete`;
  const release = await waitForLock(blob, download);
  try {
    if (await hasSize(blob, download.file.size)) return false;
    const isResumed = (await sizeOf(incomplete)) > 0;
    await fill(incomplete, download);
    const isRight = await verify(incomplete, download, isResumed);
    if (!isRight) {
      await fill(incomplete, download); // from the start: the earlier bytes may have been the wrong ones
      await verify(incomplete, download, false);
    }
    await rename(incomplete, blob);
    await syncFolder(dirname(blob));
    return true;
  } finally {
    await release();
  }
}

/** The lock of a download. */
export const lockOf = (blob: string) => `${blob}.incomplete.lock`;

/** Waits as long as the other process makes progress. */
async function waitForLock(
  blob: string,
  { where, timeoutMs, onWait }: Download,
): Promise<() => Promise<void>> {
  for (let size = -1; ;) {
    try {
      return await lockFile(lockOf(blob), {
        waitMs: 4 * timeoutMs,
        onWait: size < 0 ? onWait : undefined,
      });
    } catch (error) {
      if (!(error instanceof LockedError)) throw error;
      const now = await sizeOf(`${blob}.incomplete`);
      if (now <= size)
        throw new WeightsError(`${where}: another download of it makes no progress: ${error.message}`);
      size = now;
    }
  }
}

async function fill(incomplete: string, download: Download): Promise<void> {
  const { file, where } = download;
  if ((await sizeOf(incomplete)) > file.size) await rm(incomplete);
  let start = await sizeOf(incomplete);
  let have = start;
  const onBytes = (done: number) => download.onBytes((have = done));
  const attempt = async () => {
    have = await sizeOf(incomplete);
    if (have < file.size) await append(incomplete, have, { ...download, onBytes });
    if (have < file.size) throw new Error(`the connection ended at ${have} of ${file.size} bytes`);
  };
  const hasProgressed = () => {
    const gained = have - start;
    start = have;
    return gained >= PROGRESS;
  };
  try {
    await withRetries(download, attempt, hasProgressed);
  } catch (error) {
    const what = describe(error);
    const message =
      error instanceof RefusedError
        ? `${where}: ${what}; nothing of this answer was kept`
        : `${where}: interrupted (${what}); run the same command again to continue from there`;
    throw new WeightsError(message, undefined, { cause: error });
  }
}

/** Requests the bytes after the first `have`, and appends them. */
async function append(incomplete: string, have: number, download: Download): Promise<void> {
  const { file, url, onBytes } = download;
  const headers: Record<string, string> = { ...download.headers, 'accept-encoding': 'identity' };
  if (have > 0) headers['range'] = `bytes=${have}-${file.size - 1}`;
  const answer = await ask(url, { headers }, download);
  try {
    const start = startOf(answer.response, have, file.size);
    await write(incomplete, start, answer, file.size, onBytes);
  } finally {
    answer.abort.abort();
  }
}

/**
 * Where the bytes of an answer belong: after those that are there, or at the start if the server ignores the range.
 * @throws RefusedError for an answer that cannot be the file, such as the login page of a network
 */
function startOf({ status, headers }: Response, have: number, size: number): number {
  if (isTemporary(status)) throw new Error(`status ${status}`);
  if (status !== 200 && (status !== 206 || have === 0))
    throw new RefusedError(`expected the file, found status ${status}`);
  const start = status === 206 ? have : 0;
  const [range, length] = [headers.get('content-range'), headers.get('content-length')];
  const [type, encoding] = [headers.get('content-type') ?? '', headers.get('content-encoding') ?? 'identity'];
  if (status === 206 && !new RegExp(`^bytes ${have}-${size - 1}/(${size}|\\*)$`).test(range ?? ''))
    throw new RefusedError(`expected bytes ${have}-${size - 1} of ${size}, found ${range ?? 'no range'}`);
  if (length !== null && Number(length) !== size - start)
    throw new RefusedError(`expected ${size - start} bytes, found an answer of ${length}`);
  if (type.startsWith('text/html'))
    throw new RefusedError('expected the file, found a web page, such as the login page of a network');
  if (encoding !== 'identity') throw new RefusedError(`expected the plain file, found it as ${encoding}`);
  return start;
}

async function write(
  incomplete: string,
  start: number,
  answer: Answer,
  size: number,
  onBytes: (done: number) => void,
): Promise<void> {
  const handle = await open(incomplete, start > 0 ? 'a' : 'w');
  let have = start;
  try {
    for await (const chunk of bodyOf(answer)) {
      if (have + chunk.length > size) {
        await handle.truncate(0);
        throw new RefusedError(`expected ${size} bytes, found more`);
      }
      await handle.writeFile(chunk);
      onBytes((have += chunk.length));
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Deletes other content than the expected one.
 * @returns whether the content is right
 * @throws WeightsError if it is not, unless it is `isResumed`
 */
async function verify(incomplete: string, { file, where }: Download, isResumed: boolean): Promise<boolean> {
  const found = await hashOf(incomplete, file);
  if (found === file.hash) return true;
  await rm(incomplete);
  if (isResumed) return false;
  throw new WeightsError(
    `${where}: damaged: expected ${file.algorithm} ${file.hash}, found ${found}; it was deleted, run the same command again`,
  );
}

/** The checksum of a file, of the kind that its name in the cache is. */
export async function hashOf(path: string, { size, algorithm }: RemoteFile): Promise<string> {
  const digest = createHash(algorithm === 'sha256' ? 'sha256' : 'sha1');
  if (algorithm === 'git-sha1') digest.update(`blob ${size}\0`);
  await pipeline(createReadStream(path), digest);
  return digest.digest('hex');
}

export async function hasSize(path: string, size: number): Promise<boolean> {
  const info = await stat(path).catch(() => undefined);
  return info?.isFile() === true && info.size === size;
}

/** 0 for a file that is not there. */
async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0;
}
