/**
 * A run that is killed at a call to the file system, or whose disk is full or read-only from there on, loses nothing that it
 * had saved: resumed, it ends as if nothing had happened. A few calls of each kind here; `npm run faults` takes more.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { findCheckpoint } from '../src/run/checkpoint';
import { tinyConfig, tinyJob } from './tiny';
import type { Ended } from './faults';
import { outcome, placeOf, table, trainWith } from './faults';
import type { Fault } from './faults-process';

/** So many kills, spread over the run; half as many full and read-only disks. */
const FAULTS = Number(process.env.BLIP2_FAULTS ?? 4);
const STEPS = 4;
const LONG = 60_000 + FAULTS * 30_000;

let root: string;
let script: string;
let calls: number;
let expected: Awaited<ReturnType<typeof outcome>>;

const configOf = (name: string) =>
  tinyConfig(root, {
    output_dir: join(root, name, 'run'),
    cache_dir: join(root, name, 'features'),
    max_steps: STEPS,
    save_steps: 2,
    eval_steps: 2,
    logging_steps: 1,
    sample_steps: 2,
    save_total_limit: 1,
  });

beforeAll(async () => {
  root = await tinyJob();
  script = await bundle(new URL('faults-process.ts', import.meta.url));
  const whole = await trainWith(script, { kind: 'none', at: 0 }, configOf('whole'));
  expect(whole.error, whole.stderr).toBeUndefined();
  calls = whole.calls!;
  expected = await outcome(join(root, 'whole', 'run'), STEPS);
}, 300_000);
afterAll(() => rm(root, { recursive: true, force: true }));

/** Numbers of calls, spread over the run. */
function points(kind: Fault['kind']): number[] {
  const count = Math.min(kind === 'kill' ? FAULTS : Math.ceil(FAULTS / 2), calls);
  return Array.from({ length: count }, (_, i) => Math.floor(((i + 0.5) * calls) / count));
}

/** Lets a run meet the fault, looks at what it left, and resumes it. */
async function faultAndResume(fault: Fault): Promise<Ended> {
  const name = `${fault.kind}-${fault.at}`;
  const config = configOf(name);
  const dir = config.output_dir;
  await mkdir(join(root, name));
  const first = await trainWith(script, fault, config);
  const { damaged } = await findCheckpoint(dir);
  expect(damaged, first.stderr).toEqual([]);
  const isThere = existsSync(dir) && (await readdir(dir)).length > 0;
  if (first.error) expect(first.error).toContain(isThere ? 'and continue with --resume' : 'and start again');
  const second = await trainWith(script, { kind: 'none', at: 0 }, config, isThere);
  const story = `${name}:\n${first.stderr}--- resumed\n${second.stderr}`;
  expect(second.code, story).toBe(0);
  expect(await outcome(dir, STEPS), story).toEqual(expected);
  // drafts of features that could not be deleted go when they are an hour old
  const left = fault.kind === 'ENOSPC' ? /\.tmp|[\\/]tmp[\\/]/ : /\.tmp/;
  expect(await filesLike(left, join(root, name)), story).toEqual([]);
  await rm(join(root, name), { recursive: true });
  return first;
}

async function filesLike(pattern: RegExp, dir: string): Promise<string[]> {
  return (await readdir(dir, { recursive: true })).filter((file) => pattern.test(file));
}

describe('a training process', () => {
  const met: { kind: string; place: string }[] = [];
  afterAll(() =>
    console.error(`${calls} calls that change files\n${table(met)}\nall ended alike after resuming`),
  );

  it.each(['kill', 'ENOSPC', 'EROFS'] as const)(
    `that meets %s at some calls goes on exactly`,
    async (kind) => {
      for (const at of points(kind)) {
        const first = await faultAndResume({ kind, at });
        if (first.met) met.push({ kind, place: placeOf(first.met.file) });
        if (kind === 'kill') expect(first.code, first.stderr).toBe(null);
        else if (first.code !== 0) expect(first.error, first.stderr).toMatch(errorOf(kind));
      }
    },
    LONG,
  );

  it('whose folder is a file says so', async () => {
    const config = configOf('file');
    await mkdir(join(root, 'file'));
    await writeFile(config.output_dir, '');
    const { code, error } = await trainWith(script, { kind: 'none', at: 0 }, config);
    expect(code).toBe(1);
    expect(error).toContain(`${config.output_dir}: expected a folder for the run: ENOTDIR`);
  });
});

/** Names the run or its checkpoint, what is the matter, and what is kept. */
function errorOf(kind: string): RegExp {
  const what = '(a file of the run|the checkpoint) cannot be written';
  const kept = '(no checkpoint yet|none yet|The last one is .*)';
  return new RegExp(`^${root}/\\S+: ${what}: .*${kind}: .*${kept}; make room`);
}
