/**
 * A training process that is killed at any time, or whose disk is full or read-only, keeps everything that it has saved.
 * `npm run faults` kills it 50 times; BLIP2_FAULT_SEED repeats a failure.
 */
import { spawnSync } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { tinyData, TINY } from './testing';
import type { ProcessResult } from './faults';
import { killAndResume, outcome, PLAIN, runProcess } from './faults';

const KILLS = Number(process.env.BLIP2_FAULTS ?? 4);
const SEED = process.env.BLIP2_FAULT_SEED ?? String(Date.now());
const STEPS = 12;
const LONG = 60_000 + KILLS * 60_000;
/** Whether a private mount namespace is available, for a small and a read-only file system. */
const canMount = spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).status === 0;

let root: string;
let bin: string;
let uninterrupted: ProcessResult;
let expected: Awaited<ReturnType<typeof outcome>>;

const fitTo = (output: string, ...more: string[]) => {
  const settings = {
    max_steps: STEPS,
    save_steps: 1,
    eval_steps: 5,
    logging_steps: 2,
    save_total_limit: 2,
    per_device_train_batch_size: 3,
    learning_rate: 0.02,
    final_evaluation: 'none',
    cache_dir: join(root, 'features'),
  };
  const pairs = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  const where = ['--model', TINY, '--data', root, '--output', output, '--backend', 'cpu'];
  return [process.execPath, bin, 'fit', ...where, ...pairs, ...more];
};

beforeAll(async () => {
  root = await tinyData(4);
  bin = await bundle(new URL('../src/bin.ts', import.meta.url));
  uninterrupted = await runProcess(fitTo(join(root, 'whole')));
  expect(uninterrupted.stderr).not.toContain('error');
  expect(uninterrupted.code).toBe(0);
  expected = await outcome(join(root, 'whole'), STEPS);
  expect(expected.metrics.length).toBeGreaterThan(6);
}, 300_000);

describe('a training process', () => {
  it(
    `ends with bit-identical files after ${KILLS} kills at random times`,
    async () => {
      const dir = join(root, 'killed');
      const done = await killAndResume(
        { argv: fitTo(dir), dir, count: KILLS, seed: SEED, uninterrupted },
        async (log) => expect(await outcome(dir, STEPS), log).toEqual(expected),
      );
      expect(done.kills).toBe(KILLS);
      expect(done.runs).toBeGreaterThan(0);
      console.error(`${done.kills} kills, ${done.runs} resumed runs, seed ${SEED}: all bit-identical`);
    },
    LONG,
  );

  it.runIf(canMount)(
    'that fills the disk reports it, keeps its last checkpoint, and resumes once there is space',
    async () => {
      const [disk, kept] = [join(root, 'disk'), join(root, 'kept')];
      await mkdir(disk);
      const run = fitTo(join(disk, 'run'), '--set', 'save_total_limit=99').map(quote).join(' ');
      const full = script(`mount -t tmpfs -o size=500k tmpfs ${disk}
        ${run}; echo "first: $?" >&2
        ls ${disk}/run/checkpoints >&2
        mount -o remount,size=50m ${disk}
        ${run} --resume; echo "second: $?" >&2
        cp -r ${disk}/run ${kept}`);
      expect(full).toMatch(
        /step-0000\d\d: the checkpoint cannot be written: .*(ENOSPC|no space).* The last one is .*step-0000\d\d; make room/,
      );
      expect(full).toContain('first: 1');
      expect(full).not.toContain('.tmp');
      expect(full).toMatch(/resumed at step \d+/);
      expect(full).not.toContain('skipped damaged');
      expect(full).toContain('second: 0');
      expect(await outcome(kept, STEPS)).toEqual(expected);
    },
    LONG,
  );

  it.runIf(canMount)(
    'with a read-only folder reports it, and changes nothing in it',
    async () => {
      const dir = join(root, 'whole');
      const before = await readFile(join(dir, 'metrics.jsonl'));
      const run = fitTo(dir, '--resume').map(quote).join(' ');
      const stderr = script(
        `mount --bind ${dir} ${dir}; mount -o remount,ro,bind ${dir}; ${run}; echo "exit: $?" >&2`,
      );
      expect(stderr).toMatch(/error: .*(EROFS|read-only)/);
      expect(stderr).toContain(dir);
      expect(stderr).toContain('exit: 1');
      expect(await readFile(join(dir, 'metrics.jsonl'))).toEqual(before);
      expect(await outcome(dir, STEPS)).toEqual(expected);
    },
    LONG,
  );
});

const quote = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;

/** Runs shell lines in their own mount namespace and returns their stderr. */
function script(lines: string): string {
  return spawnSync('unshare', ['-rm', 'bash', '-c', lines], { encoding: 'utf8', env: PLAIN }).stderr;
}
