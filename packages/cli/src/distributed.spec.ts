/** `fit` in several processes, beside one process with the same batches. */
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openWeights } from '@blip2/weights/node';
import { bundle } from '../../../tsup.config';
import { mpiAddon, mpirun } from '../../distributed/spec/launch';
import { fraction, outcome, runProcess } from '../spec/faults';
import { tinyData, TINY } from '../spec/testing';

const addon = mpiAddon();
const KILLS = Number(process.env.BLIP2_FAULTS ?? 2);
const SEED = process.env.BLIP2_FAULT_SEED ?? 'ranks';
const WORDS = ['', ' and some more words', ' again'];

let root: string;
let bin: string;
let model: string;

beforeAll(async () => {
  root = await tinyData(7);
  bin = await bundle(new URL('bin.ts', import.meta.url));
  model = join(root, 'model');
  await mkdir(model);
  await cp(TINY, model, { recursive: true });
  await edit(join(model, 'config.json'), (text) => text.replace(/(dropout\w*": )0\.1/g, '$10.0'));
  const rows = join(root, 'train', 'metadata.jsonl');
  const longer = (row: string, i: number) => row.replace(' thing', ` thing${WORDS[i % 3]}`);
  await edit(rows, (text) => text.split('\n').map(longer).join('\n')); // 21 rows of unequal lengths
}, 60_000);

const edit = async (file: string, change: (text: string) => string) =>
  writeFile(file, change(await readFile(file, 'utf8')));

/** A run without dropout, whose masks follow the rows of a process. */
function fitArgs(name: string, batch: number, settings: Record<string, unknown>): string[] {
  const all = {
    ...{
      max_steps: 7,
      eval_steps: 3,
      save_steps: 3,
      logging_steps: 1,
      learning_rate: 0.01,
      cache_dir: join(root, name, 'cache'),
    },
    ...{ per_device_train_batch_size: batch, final_evaluation: 'none', metric_for_best_model: 'loss' },
    ...{ 'generation.max_new_tokens': 3, group_captions: false, ...settings },
  };
  const pairs = Object.entries(all).flatMap(([key, value]) => ['--set', `${key}=${String(value)}`]);
  const where = ['--model', model, '--data', root, '--output', join(root, name, 'run'), '--backend', 'wasm'];
  return [bin, 'fit', ...where, ...pairs];
}

async function alone(name: string, batch: number, settings: Record<string, unknown>): Promise<void> {
  const { code, stderr } = await runProcess([process.execPath, ...fitArgs(name, batch, settings)]);
  expect(code, stderr).toBe(0);
}

async function together(ranks: number, name: string, batch: number, settings: Record<string, unknown>) {
  const job = await mpirun(ranks, fitArgs(name, batch, settings), { env: { BLIP2_MPI_ADDON: addon } });
  expect(job.code, job.stderr).toBe(0);
  return job;
}

/** ‖a − b‖/‖b‖ over all trained weights, without the biases of keys, whose gradient is zero but for rounding. */
async function distance(found: string, expected: string, file: string): Promise<number> {
  const [a, b] = await Promise.all(
    [found, expected].map((name) => openWeights(join(root, name, 'run', file))),
  );
  let [off, all] = [0, 0];
  for (const name of b.entries.keys()) {
    if (/key\.bias|k_proj\.bias/.test(name)) continue;
    const [x, y] = await Promise.all([a, b].map((weights) => weights.readFloat32(name)));
    y.forEach((value, i) => {
      off += (x[i] - value) ** 2;
      all += value ** 2;
    });
  }
  await Promise.all([a.close(), b.close()]);
  return Math.sqrt(off / all);
}

type Row = Record<string, number>;
const metrics = async (name: string) =>
  (await readFile(join(root, name, 'run', 'metrics.jsonl'), 'utf8'))
    .trim()
    .split('\n')
    .map((row) => JSON.parse(row) as Row);

async function expectSameCurve(found: string, expected: string) {
  const [a, b] = [await metrics(found), await metrics(expected)];
  expect(a.map(Object.keys)).toEqual(b.map(Object.keys));
  b.forEach((row, i) => {
    for (const [key, value] of Object.entries(row))
      if (!/second/.test(key)) expect(a[i][key], `${key} of row ${i}`).toBeCloseTo(value, 5);
  });
}

describe.skipIf(!addon)('fit in several processes', () => {
  const lora = { preset: 'lora', 'lora.lora_dropout': 0 };
  it.each([
    ['LoRA', 2, { ...lora }, 'adapter/adapter_model.safetensors'],
    [
      'LoRA with accumulation',
      3,
      { ...lora, gradient_accumulation_steps: 2 },
      'adapter/adapter_model.safetensors',
    ],
    ['the Q-Former', 2, { preset: 'qformer' }, 'model/model.safetensors'],
    [
      'the Q-Former without a cache',
      3,
      { preset: 'qformer', cache_features: false },
      'model/model.safetensors',
    ],
  ])(
    'trains %s on %i ranks as one process with the whole batch',
    { timeout: 120_000 },
    async (what, ranks, settings, file) => {
      const [one, all] = [`one ${what}`, `all ${what}`];
      await alone(one, 2 * ranks, settings);
      const { stderr } = await together(ranks, all, 2, settings);
      expect(await distance(all, one, file)).toBeLessThan(1e-6);
      await expectSameCurve(all, one);
      expect(stderr.match(/^saved /gm)).toHaveLength(1); // rank 0 alone prints
    },
  );

  it(
    'stops on all ranks at the signal of mpirun, with a checkpoint, and goes on',
    { timeout: 120_000 },
    async () => {
      const settings = { ...lora, max_steps: 4000, save_steps: 4000, eval_steps: 1 };
      const env = { BLIP2_MPI_ADDON: addon };
      let stop = () => undefined as void;
      const started = (pid: number) => void (stop = () => void process.kill(pid, 'SIGUSR2'));
      const onStderr = (text: string) => void (/step 1:/.test(text) && stop());
      const job = await mpirun(2, fitArgs('stopped', 2, settings), { env, started, onStderr });
      expect(job.code).not.toBe(0);
      expect(job.stderr.match(/^continue with/gm)).toHaveLength(1);
      expect(await readdir(join(root, 'stopped', 'run', 'checkpoints'))).toHaveLength(1);
      const resumed = await mpirun(
        2,
        [...fitArgs('stopped', 2, { ...settings, max_minutes: 0.001 }), '--resume'],
        { env },
      );
      expect(resumed.code, resumed.stderr).toBe(0);
      expect(resumed.stderr).toContain('saved ');
    },
  );

  it('is whole after a rank is killed at any time', { timeout: 60_000 + KILLS * 120_000 }, async () => {
    const settings = { ...lora, max_steps: 12 };
    const whole = await together(2, 'whole', 2, settings);
    const expected = await outcome(join(root, 'whole', 'run'), 12);
    const argv = fitArgs('killed', 2, settings);
    const dir = join(root, 'killed', 'run');
    const ends: number[] = [];
    for (let kill = 0; ends.length < KILLS || existsSync(dir); kill++) {
      const after = ends.length < KILLS ? fraction(SEED, kill) * whole.seconds : undefined;
      const job = await killedJob([...argv, ...(existsSync(dir) ? ['--resume'] : [])], after, kill % 2);
      if (job.killed) {
        ends.push(job.seconds - after!);
        expect(job.code).not.toBe(0);
        continue;
      }
      expect(job.code, `seed ${SEED}: ${job.stderr}`).toBe(0);
      expect(await outcome(dir, 12), `seed ${SEED}`).toEqual(expected);
      await rm(dir, { recursive: true });
    }
    console.error(
      `${ends.length} kills; longest time to the end of the job: ${Math.max(...ends).toFixed(1)} s`,
    );
  });
});

/** A job of two ranks; rank number `victim` is killed `after` seconds, if it still runs. */
async function killedJob(argv: string[], after: number | undefined, victim: number) {
  let killed = false;
  let timer: NodeJS.Timeout | undefined;
  const started = (pid: number) => {
    if (after === undefined) return;
    timer = setTimeout(() => {
      const ranks = childrenOf(pid);
      if (ranks.length !== 2) return;
      killed = true;
      process.kill(ranks[victim], 'SIGKILL');
    }, after * 1000);
  };
  const job = await mpirun(2, argv, { env: { BLIP2_MPI_ADDON: addon }, started });
  clearTimeout(timer);
  return { ...job, killed };
}

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}
