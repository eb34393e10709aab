/**
 * A run is a folder:
 *   config.yaml        every setting, resolved; running it again repeats the run
 *   environment.json   versions, machine, backend
 *   metrics.jsonl      one row per log step and per evaluation
 *   checkpoints/       step-000123/ (see checkpoint.ts)
 *   adapter/ or model/ the result: PEFT's layout when LoRA trained, a whole HF model otherwise
 *   results.json       the final table
 *   samples.jsonl      what the model says about the images of the final table
 *   report.html
 */
import { appendFile, mkdir, readdir, stat, truncate } from 'node:fs/promises';
import { cpus, platform, totalmem } from 'node:os';
import { join } from 'node:path';
import { writeFileAtomic } from '@blip2/weights';
import type { FitConfig } from './config';
import { toYaml } from './config-yaml';

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
  if (filled && o.ifExists !== 'number')
    throw new RunFolderError(
      `${dir}: a run is already there; continue it with --resume, choose another --output, or delete it`,
    );
  return filled ? nextFree(dir) : dir;
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

/** Makes the folder with its config.yaml. */
export async function writeConfig(dir: string, config: FitConfig): Promise<void> {
  await mkdir(dir, { recursive: true });
  await writeFileAtomic(join(dir, 'config.yaml'), toYaml(config));
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

/** metrics.jsonl; its length at a checkpoint lets a resumed run cut off what came after. */
export interface MetricsLog {
  append(row: object): Promise<void>;
  bytes(): Promise<number>;
  cutTo(bytes: number): Promise<void>;
}

export function metricsLog(dir: string): MetricsLog {
  const file = join(dir, 'metrics.jsonl');
  const bytes = async () => (await stat(file).catch(() => ({ size: 0 }))).size;
  return {
    append: (row) => appendFile(file, JSON.stringify(row) + '\n'),
    bytes,
    cutTo: async (length) => {
      if ((await bytes()) > length) await truncate(file, length);
    },
  };
}
