import { cp, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  checkpointDir,
  findCheckpoint,
  listCheckpoints,
  removeLeftovers,
  restoreCheckpoint,
  readTrainables,
  rotateCheckpoints,
  writeCheckpoint,
} from './checkpoint';
import { moments } from '../train/optimizer';
import { toyParts, valuesOf } from '../../spec/toy';
import type { TrainOptions, TrainState } from '../train/train';
import { train } from '../train/train';

const OPTIONS: TrainOptions = {
  totalSteps: 9,
  gradient_accumulation_steps: 1,
  seed: 1,
  logging_steps: 2,
  eval_steps: 99,
  save_steps: 3,
};
const identity = { settings: { seed: 1 }, base: 'b', data: 'd', backend: 'cpu' };
const parts = () => toyParts({ batch: 2, rate: 0.2 });

let runDir: string;
let final: Record<string, number[]>;

beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => {
  runDir = await mkdtemp(join(tmpdir(), 'blip2-checkpoint-'));
  const run = parts();
  const save = async (state: TrainState) => {
    await writeCheckpoint(runDir, run.trainables, run.optimizer, {
      train: state,
      identity,
      logs: { 'metrics.jsonl': 5 },
    });
  };
  await train(run, OPTIONS, { save });
  final = { ...(await valuesOf(run.trainables)), ...(await valuesOf(moments(run.optimizer))) };
});

/** Restores the newest good checkpoint into a fresh run and trains to the end. */
async function resume() {
  const run = parts();
  const { found, damaged } = await findCheckpoint(runDir);
  if (found) await restoreCheckpoint(found, run.trainables, run.optimizer);
  await train(run, OPTIONS, {}, structuredClone(found?.train)); // advances it in place
  return {
    found,
    skipped: damaged.map(({ dir, why }) => `${dir.slice(-6)}: ${why}`),
    values: { ...(await valuesOf(run.trainables)), ...(await valuesOf(moments(run.optimizer))) },
  };
}

/** Changes one byte of a file. */
async function flip(file: string, at: number): Promise<void> {
  const bytes = await readFile(file);
  bytes[at < 0 ? bytes.length + at : at] ^= 1;
  await writeFile(file, bytes);
}

describe('checkpoints', () => {
  it.each([3, 6, 9])('continue from step %i to bit-identical weights and moments', async (step) => {
    await rotateCheckpoints(runDir, 0, step);
    const { found, values } = await resume();
    expect(found).toMatchObject({ identity, logs: { 'metrics.jsonl': 5 }, train: { step } });
    expect(values).toEqual(final);
  });

  it('appear whole: only finished folders are listed, newest first', async () => {
    expect(await listCheckpoints(runDir)).toEqual([9, 6, 3]);
    expect((await readdir(join(runDir, 'checkpoints'))).filter((name) => name.includes('tmp'))).toEqual([]);
    expect(await readdir(checkpointDir(runDir, 9))).toEqual([
      'optimizer.safetensors',
      'state.json',
      'trainables.safetensors',
    ]);
    expect(await listCheckpoints(join(runDir, 'nothing'))).toEqual([]);
  });

  it('are skipped, with the reason, when they are damaged', async () => {
    await truncate(join(checkpointDir(runDir, 9), 'optimizer.safetensors'), 100);
    await writeFile(join(checkpointDir(runDir, 6), 'state.json'), '{"format": 1, ');
    const { found, skipped, values } = await resume();
    expect(found?.train.step).toBe(3);
    expect(skipped).toEqual([
      '000009: optimizer.safetensors is not as it was written (its checksum differs)',
      expect.stringMatching(/^000006: state\.json is no JSON/),
    ]);
    expect(values).toEqual(final);
  });

  it.each(['trainables.safetensors', 'optimizer.safetensors', 'state.json'])(
    'are known to be damaged by a single bit of %s, and by its absence',
    async (name) => {
      const file = join(checkpointDir(runDir, 9), name);
      const good = await readFile(file);
      const at = name === 'state.json' ? good.indexOf('"step": 9') + 8 : good.length - 2;
      await flip(file, at);
      expect((await findCheckpoint(runDir)).damaged[0].why).toMatch(`${name} is not as it was written`);
      await rm(file);
      expect((await findCheckpoint(runDir)).damaged[0].why).toBe(`${name} is missing`);
      await writeFile(file, good);
      expect((await findCheckpoint(runDir)).damaged).toEqual([]);
    },
  );

  it('are refused when other tensors trained in them, and leave the weights alone', async () => {
    const run = parts();
    run.trainables.delete('bias');
    const before = await valuesOf(run.trainables);
    const { found } = await findCheckpoint(runDir);
    await expect(restoreCheckpoint(found!, run.trainables, run.optimizer)).rejects.toThrow(
      'bias does not train in this run',
    );
    expect(await valuesOf(run.trainables)).toEqual(before);
  });

  it('do not give back weights that are damaged', async () => {
    const run = parts();
    const before = await valuesOf(run.trainables);
    const dir = checkpointDir(runDir, 9);
    await flip(join(dir, 'trainables.safetensors'), -1);
    await expect(readTrainables(dir, run.trainables)).rejects.toThrow('checksum differs');
    expect(await valuesOf(run.trainables)).toEqual(before);
  });

  it('that were being written or deleted when the process was killed are cleared away', async () => {
    const folder = join(runDir, 'checkpoints');
    await cp(checkpointDir(runDir, 9), join(folder, 'step-000012.tmp'), { recursive: true });
    await mkdir(join(folder, 'mine.tmp'));
    await removeLeftovers(runDir);
    expect((await readdir(folder)).sort()).toEqual(['mine.tmp', 'step-000003', 'step-000006', 'step-000009']);
    const drafts = ['.adapter.0a1b2c-12-0.tmp/a', '.results.json.0a1b2c-12-3.tmp'];
    const others = ['.mine.tmp', 'model/model.safetensors'];
    for (const file of [...drafts, ...others]) {
      await mkdir(dirname(join(runDir, file)), { recursive: true });
      await writeFile(join(runDir, file), '');
    }
    await removeLeftovers(runDir);
    expect((await readdir(runDir)).sort()).toEqual(['.mine.tmp', 'checkpoints', 'model']);
    expect(await readdir(join(runDir, 'model'))).toEqual(['model.safetensors']);
    await removeLeftovers(join(runDir, 'nothing'));
  });

  it('rotate to the newest few and the best one', async () => {
    await rotateCheckpoints(runDir, 1, 3);
    expect(await listCheckpoints(runDir)).toEqual([9, 3]);
  });

  it('that a resumed run passed over do not push out the ones it writes', async () => {
    await rotateCheckpoints(runDir, 1, undefined, 6);
    expect(await listCheckpoints(runDir)).toEqual([9, 6]);
  });

  it('leave no tensors behind', async () => {
    const run = parts();
    const before = memory().numTensors;
    await restoreCheckpoint((await findCheckpoint(runDir)).found!, run.trainables, run.optimizer);
    expect(memory().numTensors).toBe(before);
  });
});
