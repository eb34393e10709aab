/** `fit` in several processes, beside one process with the same batches. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openWeights } from '@blip2/weights/node';
import { bundle } from '../../../tsup.config';
import { mpiAddon, MPICH, mpichAddon, mpirun } from '../../distributed/spec/launch';
import { fraction, outcome, runProcess } from '../spec/faults';
import { tinyData, TINY } from '../spec/testing';

const addon = mpiAddon();
const mpich = mpichAddon();
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

async function together(
  ranks: number,
  name: string,
  batch: number,
  settings: Record<string, unknown>,
  watch: Parameters<typeof mpirun>[2] = { env: { BLIP2_MPI_ADDON: addon } },
) {
  const job = await mpirun(ranks, fitArgs(name, batch, settings), watch);
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

const lora = { preset: 'lora', 'lora.lora_dropout': 0, gradient_accumulation_steps: 2 };
const qformer = { preset: 'qformer', gradient_accumulation_steps: 2 };
const ADAPTER = 'adapter/adapter_model.safetensors';
const MODEL = 'model/model.safetensors';
const texts = { predict_with_generate: true, final_evaluation: 'test' };

/** 21 rows of unequal lengths: the last batch of an epoch has rows for some ranks only. */
async function expectAsOne(name: string, ranks: number, settings: Record<string, unknown>, file: string) {
  const [one, all] = [`one ${name}`, `all ${name}`];
  await alone(one, 2 * ranks, settings);
  expect(await distance(all, one, file)).toBeLessThan(1e-6);
  await expectSameCurve(all, one);
  if (settings.final_evaluation === 'test') expect(await samplesOf(all)).toEqual(await samplesOf(one));
}

const samplesOf = (name: string) => readFile(join(root, name, 'run', 'samples.jsonl'), 'utf8');

describe.skipIf(!addon)('fit in several processes', () => {
  it.each([
    ['LoRA', 2, { ...lora, ...texts }, ADAPTER],
    ['LoRA', 3, lora, ADAPTER],
    ['the Q-Former', 2, qformer, MODEL],
    ['the Q-Former without a cache', 3, { ...qformer, ...texts, cache_features: false }, MODEL],
  ])('trains %s on %i ranks as one process with the whole batch', { timeout: 180_000 }, async (...given) => {
    const [what, ranks, settings, file] = given;
    const name = `${what} on ${ranks}`;
    const { stderr } = await together(ranks, `all ${name}`, 2, settings);
    await expectAsOne(name, ranks, settings, file);
    expect(stderr.match(/^saved /gm)).toHaveLength(1); // rank 0 alone prints
  });

  it(
    'stops on all ranks at the signal of mpirun, with a checkpoint, and goes on',
    { timeout: 120_000 },
    async () => {
      const settings = {
        ...lora,
        gradient_accumulation_steps: 1,
        max_steps: 4000,
        save_steps: 4000,
        eval_steps: 1,
      };
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

  it(
    'ends on all ranks with one error when a picture can no longer be read, and goes on to the same bits when it can',
    { timeout: 180_000 },
    async () => {
      const settings = {
        ...lora,
        gradient_accumulation_steps: 1,
        max_steps: 40,
        eval_steps: 1,
        cache_features: false,
      };
      await together(2, 'undamaged', 2, settings);
      const picture = join(root, 'train', 'red.png');
      const bytes = await readFile(picture);
      let cut = 0;
      const onStderr = (text: string) => {
        if (cut > 0 || !/step 2:/.test(text)) return;
        writeFileSync(picture, bytes.subarray(0, 60));
        cut = performance.now();
      };
      const argv = fitArgs('damaged', 2, settings);
      const { code, stderr } = await mpirun(2, argv, { env: { BLIP2_MPI_ADDON: addon }, onStderr });
      await writeFile(picture, bytes);
      expect((performance.now() - cut) / 1000).toBeLessThan(30);
      expect(code).toBe(1);
      expect(stderr.match(/^error: /gm), stderr).toHaveLength(1);
      expect(stderr).toMatch(
        /^error: [^]*red\.png[^]*\nThe weights after step \d+ were saved in .*; continue with --resume\.$/m,
      );
      expect(stderr).not.toContain('stopping after this step');
      const resumed = await mpirun(2, [...argv, '--resume'], { env: { BLIP2_MPI_ADDON: addon } });
      expect(resumed.code, resumed.stderr).toBe(0);
      const [found, expected] = ['damaged', 'undamaged'].map((name) => outcome(join(root, name, 'run'), 40));
      expect(await found).toEqual(await expected);
    },
  );

  it('prints an error that all ranks have once', { timeout: 60_000 }, async () => {
    const argv = fitArgs('refused', 2, { ...lora, learning_rate: -1 });
    const { code, stderr } = await mpirun(2, argv, { env: { BLIP2_MPI_ADDON: addon } });
    expect(code).not.toBe(0);
    expect(stderr.match(/^error: /gm), stderr).toHaveLength(1);
    expect(stderr).toMatch(/^error: [^]*learning_rate: expected a number above 0/m);
  });

  it('is whole after a rank is killed at any time', { timeout: 60_000 + KILLS * 120_000 }, async () => {
    const settings = { ...lora, gradient_accumulation_steps: 1, max_steps: 12 };
    const whole = await together(2, 'whole', 2, settings);
    const expected = await outcome(join(root, 'whole', 'run'), 12);
    const argv = fitArgs('killed', 2, settings);
    const dir = join(root, 'killed', 'run');
    const ends: number[] = [];
    for (let kill = 0; ends.length < KILLS || existsSync(dir); kill++) {
      const after = ends.length < KILLS ? fraction(SEED, kill) * whole.seconds : undefined;
      const victim = Math.floor(2 * fraction(`${SEED} rank`, kill));
      const job = await killedJob([...argv, ...(existsSync(dir) ? ['--resume'] : [])], after, victim);
      if (job.killed) {
        ends.push(job.ending);
        expect(ends.at(-1)).toBeLessThan(30);
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

describe.skipIf(!mpich)('fit in several processes of MPICH', () => {
  it.each([
    ['LoRA', 3, lora, ADAPTER],
    ['the Q-Former', 2, { ...qformer, ...texts }, MODEL],
  ])('trains %s on %i ranks as one process with the whole batch', { timeout: 180_000 }, async (...given) => {
    const [what, ranks, settings, file] = given;
    const name = `${what} on ${ranks} of MPICH`;
    const watch = { mpirun: MPICH, env: { BLIP2_MPI_ADDON: mpich } };
    const { stderr } = await together(ranks, `all ${name}`, 2, settings, watch);
    expect(stderr).toMatch(/^\d processes, MPICH /m);
    await expectAsOne(name, ranks, settings, file);
  });
});

/** A job of two ranks; rank number `victim` is killed `after` seconds, if it still runs. */
async function killedJob(argv: string[], after: number | undefined, victim: number) {
  let killed: number | undefined;
  let timer: NodeJS.Timeout | undefined;
  const started = (pid: number) => {
    if (after === undefined) return;
    timer = setTimeout(() => {
      const ranks = childrenOf(pid);
      if (ranks.length !== 2) return;
      killed = performance.now();
      process.kill(ranks[victim], 'SIGKILL');
    }, after * 1000);
  };
  const job = await mpirun(2, argv, { env: { BLIP2_MPI_ADDON: addon }, started });
  clearTimeout(timer);
  // a busy machine may be late to kill
  return { ...job, killed: killed !== undefined, ending: (performance.now() - (killed ?? 0)) / 1000 };
}

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}
