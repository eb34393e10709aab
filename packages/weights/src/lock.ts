/**
 * One writer at a time: a lock file that names its holder. The lock of a process that has ended is recognised and taken over,
 * so a kill leaves nothing that has to be deleted by hand on the same host.
 */
import { constants, readFileSync, rmSync } from 'node:fs';
import { open, readFile, rename, rm, link } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { isRunning } from './staging';

/** Another process holds the lock. */
export class LockedError extends Error {
  override readonly name = 'LockedError';
}

export interface LockOptions {
  /** how long to wait for another holder, in milliseconds; default 0 */
  waitMs?: number;
  /** called once if another process holds the lock, with a description of it */
  onWait?: (holder: string) => void;
}

interface Holder {
  host: string;
  pid: number;
  /** distinguishes the process from a later one with the same number; empty where the system does not tell */
  start: string;
  /** when the lock was taken */
  since: string;
  /** the job of Slurm that the process belongs to, and how often that was started again */
  job?: { id: string; restarts: number };
}

/**
 * Takes the lock `path` and returns the function that releases it. It is also released when the process exits or a signal ends
 * it. The folder must exist.
 * @throws LockedError when another process (or this one) holds it, or may hold it on another host
 */
export async function lockFile(
  path: string,
  { waitMs = 0, onWait }: LockOptions = {},
): Promise<() => Promise<void>> {
  const { pid } = process;
  const own: Holder = {
    host: hostname(),
    pid,
    start: startOf(pid),
    since: new Date().toISOString(),
    job: jobOf(process.env),
  };
  const text = JSON.stringify({ ...own, lock: locks++ }) + '\n';
  const deadline = performance.now() + waitMs;
  for (let waits = 0, unreadable = 0; ;) {
    if (await create(path, text)) return hold(path, text);
    const found = await contentOf(path);
    if (found === undefined) continue;
    const holder = holderIn(found);
    if (holder ? hasEnded(holder) : unreadable++ >= 20) {
      await takeAway(path, found);
      continue;
    }
    if (holder && performance.now() >= deadline) throw new LockedError(`${path}: ${heldBy(holder)}`);
    if (holder && waits++ === 0) onWait?.(heldBy(holder));
    await sleep(holder ? 200 : 50); // without a holder: it is being written, or its writer was killed
  }
}

let locks = 0;

async function create(path: string, text: string): Promise<boolean> {
  const handle = await open(path, 'wx').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EEXIST') return undefined;
    throw error;
  });
  if (!handle) return false;
  try {
    await handle.writeFile(text);
    return true;
  } catch (error) {
    await rm(path, { force: true }).catch(() => undefined);
    throw error;
  } finally {
    await handle.close();
  }
}

/** Undefined when the lock has been released meanwhile. */
async function contentOf(path: string): Promise<string | undefined> {
  try {
    // Non-blocking, so that a named pipe in place of the file cannot hang the program.
    return await readFile(path, { encoding: 'utf8', flag: constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function holderIn(text: string): Holder | undefined {
  try {
    const holder = JSON.parse(text) as Partial<Holder> | null;
    return Number.isSafeInteger(holder?.pid) ? (holder as Holder) : undefined;
  } catch {
    return undefined;
  }
}

function hasEnded({ host, pid, start, job }: Holder): boolean {
  if (host !== hostname()) return wasStartedAgain(job);
  if (!isRunning(pid)) return true;
  const now = startOf(pid);
  return now !== '' && start !== '' && now !== start;
}

/** A job that Slurm starts again, often on another machine, keeps its number, and its earlier processes have ended. */
function wasStartedAgain(job: Holder['job']): boolean {
  const own = jobOf(process.env);
  return job !== undefined && own !== undefined && job.id === own.id && job.restarts < own.restarts;
}

function jobOf({ SLURM_JOB_ID, SLURM_CLUSTER_NAME, SLURM_RESTART_COUNT }: NodeJS.ProcessEnv): Holder['job'] {
  if (SLURM_JOB_ID === undefined) return undefined;
  return { id: `${SLURM_CLUSTER_NAME ?? ''} ${SLURM_JOB_ID}`, restarts: Number(SLURM_RESTART_COUNT ?? 0) };
}

/** Boot and start time of a process, from /proc. A zombie has ended. Empty on other systems. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    return fields[0] === 'Z' ? 'ended' : `${boot} ${fields[19]}`;
  } catch {
    return '';
  }
}

/**
 * Removes a lock whose holder has ended. It is moved away first: of several processes that try, only one gets it. If another one
 * had replaced it meanwhile, its lock is put back.
 */
async function takeAway(path: string, expected: string): Promise<void> {
  const away = `${path}.${process.pid}-${locks++}.tmp`;
  try {
    await rename(path, away);
    if ((await readFile(away, 'utf8')) !== expected) await link(away, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  } finally {
    await rm(away, { force: true });
  }
}

function heldBy({ host, pid, since }: Holder): string {
  const who = `process ${pid} on ${host} has been writing here since ${since}`;
  if (host !== hostname())
    return `${who}. Whether it still runs cannot be seen from ${hostname()}: if it does not, delete this file and try again`;
  return pid === process.pid
    ? `this process (${pid}) is already writing here`
    : `${who}; wait for it, or stop it`;
}

/** The locks of this process: path → content. */
const held = new Map<string, string>();
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

function hold(path: string, text: string): () => Promise<void> {
  if (held.size === 0) {
    process.on('exit', releaseAll);
    for (const signal of SIGNALS) process.on(signal, endBy);
  }
  held.set(path, text);
  return async () => {
    if (!held.delete(path)) return;
    if (held.size === 0) {
      process.off('exit', releaseAll);
      for (const signal of SIGNALS) process.off(signal, endBy);
    }
    const isOwn = (await contentOf(path).catch(() => undefined)) === text;
    if (isOwn) await rm(path).catch(() => undefined); // a lock that stays is stale when this process has ended
  };
}

function releaseAll(): void {
  for (const [path, text] of held) {
    try {
      if (readFileSync(path, 'utf8') === text) rmSync(path);
    } catch {
      // a lock that stays is recognised as stale
    }
  }
  held.clear();
}

/** Ends the process by the signal, as without a handler, unless the program handles it. */
function endBy(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  releaseAll();
  process.off(signal, endBy);
  process.kill(process.pid, signal);
}
