/**
 * A run is a folder:
 *   config.yaml        every setting, resolved; running it again repeats the run
 *   environment.json   versions, machine, backend
 *   images.sha256      checksums of the training images; a resumed run must have the same
 *   smoothing.safetensors  in int8: factors that the weights were rounded with (model/smoothing.ts)
 *   metrics.jsonl      one row per log step and per evaluation
 *   training-samples.jsonl  what the model said about a few fixed images during training
 *   tensorboard/       the metrics as TensorBoard event files
 *   checkpoints/       step-000123/ (see checkpoint.ts)
 *   adapter/ or model/ the result: PEFT's layout when LoRA trained, a whole HF model otherwise
 *   results.json       the final table
 *   samples.jsonl      what the model says about the images of the final table
 *   report.html
 */
import { appendFile, open, readdir, stat, truncate } from 'node:fs/promises';
import { cpus, platform, totalmem } from 'node:os';
import { join } from 'node:path';
import { isDraft, LockedError, lockFile, makeFolders, writeFileAtomic } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import { fitSchema, SCHEMA_FILE, SCHEMA_LINE, toYaml } from '../config';

/** The output folder cannot be used as asked. */
export class RunFolderError extends Error {
  override name = 'RunFolderError';
}

export type IfExists = 'error' | 'number';

/**
 * The folder a run will use; nothing is made yet. A folder with something in it is an error, so that no run is
 * overwritten; `number` takes DIR-2, DIR-3… instead, for callers whose users did not choose the name. With
 * `resume` the folder must be there.
 */
export async function chooseRunFolder(
  dir: string,
  o: { resume?: boolean; ifExists?: IfExists },
): Promise<string> {
  const filled = await isFilled(dir);
  if (o.resume) {
    if (!filled)
      throw new RunFolderError(`${dir}: there is no run to resume; leave out --resume to start one`);
    return dir;
  }
  if (filled && o.ifExists !== 'number') throw taken(dir);
  return filled ? nextFree(dir) : dir;
}

function taken(dir: string): RunFolderError {
  return new RunFolderError(
    `${dir}: a run is already there; continue it with --resume, choose another --output, or delete it`,
  );
}

async function nextFree(dir: string): Promise<string> {
  for (let n = 2; ; n++) if (!(await isFilled(`${dir}-${n}`))) return `${dir}-${n}`;
}

async function isFilled(dir: string): Promise<boolean> {
  try {
    return (await readdir(dir)).some((name) => name !== LOCK && !isDraft(name)); // these are left by a kill
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw cannotBe(dir, error as Error);
  }
}

/** Writes config.yaml, and the JSON Schema that it names for editors, into a folder that is there. */
export async function writeConfig(dir: string, config: FitConfig): Promise<void> {
  await writeFileAtomic(join(dir, 'config.yaml'), SCHEMA_LINE + toYaml(config));
  await writeFileAtomic(join(dir, SCHEMA_FILE), JSON.stringify(fitSchema, null, 2) + '\n');
}

/** The lock of a run folder: one process writes in it at a time. */
export interface RunLock {
  /** @throws LockedError when another process holds it */
  take(dir: string): Promise<void>;
  release(): Promise<void>;
}

const LOCK = '.lock';

export function runLock(): RunLock {
  let release: (() => Promise<void>) | undefined;
  return {
    take: async (dir) => {
      release = await lockFile(join(dir, LOCK));
    },
    release: async () => {
      await release?.();
      release = undefined;
    },
  };
}

/**
 * Makes the folder of a new run, takes its lock, writes its config.yaml, and returns its path: `config.output_dir`, or, with
 * `number`, the next free one after `wanted` when another run was quicker. Two runs never get the same.
 * @throws RunFolderError or LockedError when the folder is taken
 */
export async function claimRunFolder(
  config: FitConfig,
  lock: RunLock,
  { wanted, ifExists }: { wanted: string; ifExists?: IfExists },
): Promise<string> {
  let dir = config.output_dir;
  for (let n = 2; ; n++) {
    const problem = await claim(dir, lock);
    if (!problem) break;
    if (ifExists !== 'number') throw problem;
    dir = `${wanted}-${n}`;
  }
  await writeConfig(dir, { ...config, output_dir: dir });
  return dir;
}

const cannotBe = (dir: string, { message }: Error) =>
  new RunFolderError(`${dir}: expected a folder for the run: ${message}`);

/** Takes a folder; an empty one that was there is used. Returns the error if another run has taken it. */
async function claim(dir: string, lock: RunLock): Promise<Error | undefined> {
  if (await isFilled(dir)) return taken(dir);
  await makeFolders(dir).catch((error: NodeJS.ErrnoException) => {
    throw ['ENOENT', 'EEXIST'].includes(error.code ?? '') ? cannotBe(dir, error) : error;
  });
  try {
    await lock.take(dir);
  } catch (error) {
    if (error instanceof LockedError) return error;
    throw error;
  }
  if (!(await isFilled(dir))) return undefined;
  await lock.release();
  return taken(dir);
}

/** What a stranger needs to know to repeat or judge a run. */
export async function writeEnvironment(dir: string, extra: Record<string, unknown>): Promise<void> {
  const processors = cpus();
  const environment = {
    node: process.version,
    platform: `${platform()} ${process.arch}`,
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memory_gib: Number((totalmem() / 2 ** 30).toFixed(1)),
    started: new Date().toISOString(),
    ...extra,
  };
  await writeJson(join(dir, 'environment.json'), environment);
}

export async function writeJson(file: string, value: unknown): Promise<void> {
  await writeFileAtomic(file, JSON.stringify(value, null, 2) + '\n');
}

export async function writeJsonl(file: string, rows: unknown[]): Promise<void> {
  await writeFileAtomic(file, rows.map((row) => JSON.stringify(row) + '\n').join(''));
}

/** A file that only grows; its length at a checkpoint lets a resumed run cut off what came after. */
export interface RunLog {
  append(data: string | Uint8Array): Promise<void>;
  /** Flushes to the disk, and says how long the file is, in bytes. */
  flush(): Promise<number>;
  /** @throws RunFolderError for a pipe, device or folder */
  cutTo(bytes: number): Promise<void>;
}

export function runLog(file: string): RunLog {
  return {
    append: (data) => appendFile(file, data),
    flush: async () => {
      const handle = await open(file, 'a');
      try {
        await handle.sync();
        return (await handle.stat()).size;
      } finally {
        await handle.close();
      }
    },
    cutTo: async (length) => {
      const info = await stat(file).catch(() => undefined);
      if (info && !info.isFile())
        throw new RunFolderError(
          `${file}: expected a regular file to append to, found another kind; remove it`,
        );
      if (info && info.size > length) await truncate(file, length);
    },
  };
}
