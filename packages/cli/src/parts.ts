/** A list of pictures divided among the jobs of an array, and their files joined again. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { mayPass } from '@blip2/data-captions';
import { launchOf } from '@blip2/distributed';
import { readRegular, writeFileAtomic } from '@blip2/weights/node';
import { PATHS } from './captions-file';
import { UsageError } from './errors';

/** Part `index` of `of`, counted from 0. */
export interface Part {
  index: number;
  of: number;
}

/**
 * "3/8", or "auto": from the variables of a Slurm array, of a Kubernetes Indexed Job (with BLIP2_PARTS, which it does not set) or of
 * mpirun or srun.
 * @throws UsageError for another text, or without such variables
 */
export function partOf(text: string, env: NodeJS.ProcessEnv): Part {
  const [, k, n] = (/^(\d+)\/(\d+)$/.exec(text) ?? []).map(Number);
  const part = text === 'auto' ? launchedPart(env) : { index: k - 1, of: n };
  if (part && part.index >= 0 && part.index < part.of) return part;
  throw new UsageError(
    text === 'auto'
      ? '--part auto: expected to be started by a Slurm array (sbatch --array), an Indexed Job with BLIP2_PARTS, mpirun or srun; ' +
          'elsewhere say --part 3/8'
      : `--part: expected a part such as 3/8 or auto, found ${text}`,
  );
}

function launchedPart(env: NodeJS.ProcessEnv): Part | undefined {
  const number = (name: string) => (env[name] === undefined ? undefined : Number(env[name]));
  const task = number('SLURM_ARRAY_TASK_ID');
  if (task !== undefined) {
    const [first, last, of] = ['MIN', 'MAX', 'COUNT'].map((name) => number(`SLURM_ARRAY_TASK_${name}`));
    if (first === undefined || first > 1 || last !== first + of! - 1)
      throw new UsageError(
        `--part auto: expected a whole array such as --array=1-8, found ${of} tasks from ${first} to ${last}; submit the whole ` +
          'array again (a finished task ends at once), or name the part: --part 3/8',
      );
    return { index: task - first, of: of! };
  }
  const index = number('JOB_COMPLETION_INDEX');
  const of = number('BLIP2_PARTS');
  if (index !== undefined && of !== undefined) return { index, of };
  const launch = launchOf(env);
  return launch && { index: launch.rank, of: launch.size };
}

/** Every `of`-th picture, so that parts are of one size whatever the order. */
export const picturesOf = (pictures: string[], { index, of }: Part) =>
  pictures.filter((_, i) => i % of === index);

/** "captions.part-3-of-8.jsonl" for "captions.jsonl". */
export function fileOf(output: string, { index, of }: Part): string {
  return output.replace(/(\.\w+)$/, `.part-${index + 1}-of-${of}$1`);
}

/** A picture without a row, with the reason. */
interface Failed {
  /** as in rows: relative to the folder of the file */
  image: string;
  error: string;
}

const failedFile = (part: string) => join(dirname(resolve(part)), `.${basename(part)}.failed.json`);

/**
 * Keeps beside a part which of its pictures cannot be read, in place of what was kept before. One that may be read another time is not kept.
 * @returns those that are not kept
 */
export async function keepFailed(part: string, failed: readonly Failed[]): Promise<Failed[]> {
  const damaged = failed.filter(({ error }) => !mayPass(error));
  const folder = dirname(resolve(part));
  const named = damaged.map(({ image, error }) => ({ image: PATHS.toRow(image, folder), error }));
  if (named.length > 0) await writeFileAtomic(failedFile(part), JSON.stringify(named, null, 2) + '\n');
  else await rm(failedFile(part), { force: true });
  return failed.filter((one) => !damaged.includes(one));
}

export interface Joined {
  output: string;
  rows: number;
  /** pictures that cannot be read, which have no row */
  failed: Failed[];
  sha256: string;
  parts: { file: string; rows: number; sha256: string }[];
}

/**
 * Writes the rows of all parts of `output` into it, in the order of `pictures`, and a manifest beside it.
 * @throws Error, before anything is written, for a part or a picture that is missing, a picture that occurs twice, parts that were
 * made with different settings, or no row at all
 */
export async function joinParts(output: string, pictures: string[]): Promise<Joined> {
  const folder = dirname(resolve(output));
  const { lines, failed, parts, settings } = await readParts(output, folder);
  const wanted = new Set(pictures.map((picture) => resolve(picture)));
  const without = [...wanted].filter((picture) => !lines.has(picture));
  refuseMissing(
    without.filter((picture) => !failed.has(picture)),
    wanted.size,
    output,
  );
  refuseOthers(
    [...lines.keys()].filter((picture) => !wanted.has(picture)),
    output,
  );
  if (lines.size === 0)
    throw new Error(
      `${output}: none of ${wanted.size} pictures can be read: ${failed.get(without[0])?.error}`,
    );
  const whole = [...wanted]
    .flatMap((picture) => lines.get(picture) ?? [])
    .map((row) => `${row}\n`)
    .join('');
  await writeFileAtomic(
    join(folder, `.${basename(output)}.settings.json`),
    JSON.stringify(settings, null, 2) + '\n',
  );
  await writeFileAtomic(output, whole);
  const joined = {
    output,
    rows: lines.size,
    failed: without.map((picture) => failed.get(picture)!),
    sha256: sha256(whole),
    parts,
  };
  await writeFileAtomic(`${output}.manifest.json`, JSON.stringify(joined, null, 2) + '\n');
  return joined;
}

interface Parts {
  /** rows, and reasons why there is none, by the path of their picture */
  lines: Map<string, string>;
  failed: Map<string, Failed>;
  parts: Joined['parts'];
  /** the same for all parts */
  settings: unknown;
}

/** @throws Error for parts that are missing, unfinished, or made with different settings, and for a picture that occurs twice */
async function readParts(output: string, folder: string): Promise<Parts> {
  const files = await partFiles(output, folder);
  const lines = new Map<string, string>();
  const failed = new Map<string, Failed>();
  const parts: Joined['parts'] = [];
  const settings: unknown[] = [];
  for (const name of files) {
    for (const one of await failedIn(join(folder, name))) failed.set(resolve(folder, one.image), one);
    const text = (await readRegular(join(folder, name))).toString('utf8');
    const rows = text.split('\n').filter(Boolean);
    for (const row of rows) addRow(lines, row, folder, name);
    parts.push({ file: name, rows: rows.length, sha256: sha256(text) });
    settings.push(JSON.parse((await readRegular(join(folder, `.${name}.settings.json`))).toString('utf8')));
  }
  const other = settings.findIndex((one) => !isDeepStrictEqual(one, settings[0]));
  if (other > 0)
    throw new Error(`${files[other]}: its rows were made with other settings than those of ${files[0]}`);
  return { lines, failed, parts, settings: settings[0] };
}

const failedIn = async (part: string): Promise<Failed[]> =>
  existsSync(failedFile(part))
    ? (JSON.parse((await readRegular(failedFile(part))).toString('utf8')) as Failed[])
    : [];

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

/** @throws Error if there are none, or not all of one division */
async function partFiles(output: string, folder: string): Promise<string[]> {
  const [, stem, ending] = /^(.*)(\.\w+)$/.exec(basename(output)) ?? ['', basename(output), ''];
  const found = (await readdir(folder)).flatMap((name) => {
    const match = /^(.*)\.part-(\d+)-of-(\d+)(\.\w+)$/.exec(name);
    return match && match[1] === stem && match[4] === ending
      ? [{ name, k: Number(match[2]), of: Number(match[3]) }]
      : [];
  });
  const divisions = [...new Set(found.map(({ of }) => of))];
  if (divisions.length !== 1)
    throw new Error(
      `${output}: expected its parts, such as ${fileOf(basename(output), { index: 0, of: 8 })}, in ${folder}, found ` +
        (divisions.length === 0
          ? 'none'
          : `parts of ${divisions.join(' and of ')}; delete those of an earlier division`),
    );
  const missing = Array.from({ length: divisions[0] }, (_, i) => i + 1).filter(
    (k) => !found.some((one) => one.k === k),
  );
  if (missing.length > 0)
    throw new Error(`${output}: missing parts ${missing.join(', ')} of ${divisions[0]}; run these again`);
  return found.sort((a, b) => a.k - b.k).map(({ name }) => name);
}

function addRow(lines: Map<string, string>, row: string, folder: string, file: string): void {
  let image: unknown;
  try {
    ({ image } = JSON.parse(row) as { image?: unknown });
  } catch {
    image = undefined;
  }
  if (typeof image !== 'string')
    throw new Error(
      `${file}: the part is not finished: ${row.slice(0, 60)}; run it again, which continues it`,
    );
  const path = resolve(folder, image);
  if (lines.has(path)) throw new Error(`${file}: ${image} is in another part as well`);
  lines.set(path, row);
}

const some = (list: string[]) => list.slice(0, 5).join(', ') + (list.length > 5 ? ', …' : '');

/** @throws Error for pictures that have neither a row nor a reason */
function refuseMissing(missing: string[], all: number, output: string): void {
  if (missing.length > 0)
    throw new Error(
      `${output}: ${missing.length} of ${all} pictures have no row yet: ${some(missing)}; run the same array job again, ` +
        'which does what is missing',
    );
}

/** @throws Error for rows without a picture */
function refuseOthers(more: string[], output: string): void {
  if (more.length > 0)
    throw new Error(`${output}: ${more.length} rows are of pictures that were not named: ${some(more)}`);
}
