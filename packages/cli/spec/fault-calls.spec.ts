/**
 * Each system call that changes files fails once, or kills the process: nothing half-written gets a final name, and the same
 * command succeeds afterwards. A few calls of each command here; `npm run faults` takes more. BLIP2_FAULT_CALLS=each kills every call
 * once and lets it fail once, with the errors in turn; BLIP2_FAULT_CALLS=all lets every call meet every fault, which takes hours for `fit`.
 */
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import type { Job, Tried } from './fault-calls';
import { eachCall, faultLibrary, hashOf, someCalls, table, tryJob } from './fault-calls';
import { outcome } from './faults';
import { startHub } from './hub';
import { tinyData, TINY } from './testing';

const asked = process.env.BLIP2_FAULT_CALLS;
const every = asked === 'all' || asked === 'each';
const points = every ? Infinity : Number(asked ?? 1);
const chosen = asked === 'each' ? eachCall : someCalls(points);
const library = faultLibrary();
const LAVIS = fileURLToPath(new URL('../../weights/fixtures/lavis/trained.pth', import.meta.url));
const BASE = fileURLToPath(new URL('../../peft-lora/fixtures/base', import.meta.url));
const ADAPTER = fileURLToPath(new URL('../../blip2/fixtures/tiny-adapter', import.meta.url));

let root: string;
let bin: string;
const tried: Tried[] = [];
const hub = await startHub();

beforeAll(async () => {
  root = await tinyData(2);
  bin = await bundle(new URL('../src/bin.ts', import.meta.url));
}, 60_000);
afterAll(async () => {
  console.error(table(tried));
  hub.stop();
  await rm(root, { recursive: true, force: true });
});

const blip2 = (...args: string[]) => [process.execPath, bin, ...args];

/** A run that trains, evaluates and saves; `--resume` goes on once its folder is there. */
function fitJob(name: string, settings: Record<string, unknown>, result: Job['result'], whole: string): Job {
  const short = { 'generation.max_new_tokens': 3, final_evaluation: 'none' };
  const all = { save_steps: 2, eval_steps: 2, logging_steps: 1, ...short, ...settings };
  const argv = (dir: string) => {
    const pairs = Object.entries({ cache_dir: join(dir, 'cache'), ...all });
    return blip2(
      ...['fit', '--model', TINY, '--data', root, '--output', join(dir, 'run'), '--backend', 'wasm'],
      ...pairs.flatMap(([key, value]) => ['--set', `${key}=${String(value)}`]),
    );
  };
  const again = (dir: string) =>
    existsSync(join(dir, 'run', 'config.yaml')) ? [...argv(dir), '--resume'] : argv(dir);
  return { name, argv, again, result: (dir) => result(join(dir, 'run')), whole: [`run/${whole}`] };
}

const model = (dir: string) => join(dir, 'model');
const JOBS: Job[] = [
  fitJob(
    'fit',
    { max_steps: 4, sample_steps: 2, save_total_limit: 1, learning_rate: 0.02 },
    async (dir) => ({ ...(await outcome(dir, 4)), folder: await hashOf(join(dir, 'adapter')) }),
    'adapter',
  ),
  fitJob('fit-model', { max_steps: 1, preset: 'qformer' }, (dir) => hashOf(join(dir, 'model')), 'model'),
  {
    name: 'merge',
    argv: (dir) =>
      blip2('merge', '--model', TINY, '--adapter', ADAPTER, '--output', model(dir), '--backend', 'cpu'),
    result: (dir) => hashOf(model(dir)),
    whole: ['model'],
  },
  {
    name: 'import-lavis',
    argv: (dir) => blip2('import-lavis', LAVIS, '--base', BASE, '--output', model(dir)),
    result: (dir) => hashOf(model(dir)),
    whole: ['model'],
  },
  {
    name: 'data-check',
    argv: (dir) => blip2('data', 'check', root, '--html', join(dir, 'sheet.html')),
    result: (dir) => hashOf(join(dir, 'sheet.html')),
    whole: [],
  },
  {
    name: 'pull',
    argv: (dir) => blip2('pull', 'acme/tiny', '--cache-dir', dir),
    result: async (dir) => [
      await hashOf(join(dir, 'models--acme--tiny', 'snapshots')),
      await hashOf(join(dir, 'models--acme--tiny', 'refs')),
    ],
    whole: ['models--acme--tiny/refs'],
    env: { HF_ENDPOINT: hub.url, HF_HUB_DOWNLOAD_TIMEOUT: '10' },
  },
];

describe('system calls that fail', () => {
  it.runIf(library).each(JOBS)(
    '$name loses nothing and can be repeated',
    async (job) => {
      const some = await tryJob(library!, root, job, chosen);
      tried.push(...some);
      expect(some.length).toBeGreaterThan(0);
      expect(some.flatMap(({ problem }) => problem ?? [])).toEqual([]);
    },
    every ? 14_400_000 : 120_000 + points * 120_000,
  );
});
