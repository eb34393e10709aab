/**
 * A run is a folder:
 *   config.yaml        every setting, resolved; running it again repeats the run
 *   environment.json   versions, machine, backend
 *   metrics.jsonl      one row per log step and per evaluation
 *   training-samples.jsonl  what the model said about a few fixed images during training
 *   tensorboard/       the metrics as TensorBoard event files
 *   checkpoints/       step-000123/ (see checkpoint.ts)
 *   adapter/ or model/ the result: PEFT's layout when LoRA trained, a whole HF model otherwise
 *   results.json       the final table
 *   samples.jsonl      what the model says about the images of the final table
 *   report.html
 */
import { existsSync } from 'node:fs';
import { appendFile, mkdir, open, readdir, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { cpus, platform, totalmem } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { writeFileAtomic } from '@blip2/weights/node';
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
    return (await readdir(dir)).length > 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw new RunFolderError(`${dir}: expected a folder for the run: ${(error as Error).message}`);
  }
}

/** Writes config.yaml, and the JSON Schema that it names for editors, into a folder that is there. */
export async function writeConfig(dir: string, config: FitConfig): Promise<void> {
  await writeFileAtomic(join(dir, 'config.yaml'), SCHEMA_LINE + toYaml(config));
  await writeFileAtomic(join(dir, SCHEMA_FILE), JSON.stringify(fitSchema, null, 2) + '\n');
}

/**
 * Makes the folder of a new run, with its config.yaml in it from the first moment, and returns its path: `config.output_dir`,
 * or, with `number`, the next free one after `wanted` when another run was quicker. Two runs never get the same.
 * @throws RunFolderError when the folder is taken
 */
export async function claimRunFolder(
  config: FitConfig,
  { wanted, ifExists }: { wanted: string; ifExists?: IfExists },
): Promise<string> {
  let dir = config.output_dir;
  await removeDeadDrafts(dir);
  while (!(await claim(dir, { ...config, output_dir: dir }))) {
    if (ifExists !== 'number') throw taken(dir);
    dir = await nextFree(wanted);
  }
  return dir;
}

/** Makes the folder, unless someone has; an empty one that was there is used. */
async function claim(dir: string, config: FitConfig): Promise<boolean> {
  const draft = `${dir}.tmp-${process.pid}-${drafts++}`;
  try {
    if (existsSync(dir)) await writeFile(join(dir, 'config.yaml'), '', { flag: 'wx' });
    else {
      await mkdir(draft, { recursive: true });
      await writeConfig(draft, config);
      await rename(draft, dir); // fails when `dir` has something in it by now
      return true;
    }
    await writeConfig(dir, config);
    return true;
  } catch (error) {
    if (TAKEN.includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

/** Removes what `claim` was still writing for this folder in processes that were killed. */
async function removeDeadDrafts(dir: string): Promise<void> {
  const beside = dirname(dir);
  const prefix = `${basename(dir)}.tmp-`;
  for (const name of await readdir(beside).catch(() => [])) {
    const pid = name.startsWith(prefix) && /^(\d+)-\d+$/.exec(name.slice(prefix.length))?.[1];
    if (pid && isGone(Number(pid))) await rm(join(beside, name), { recursive: true, force: true });
  }
}

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0); // only asks
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

const TAKEN = ['EEXIST', 'ENOTEMPTY', ...(platform() === 'win32' ? ['EPERM'] : [])];
let drafts = 0;

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
      const size = (await stat(file).catch(() => undefined))?.size ?? 0;
      if (size > length) await truncate(file, length);
    },
  };
}
