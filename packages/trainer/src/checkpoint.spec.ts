import { mkdtemp, readdir, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { memory, useBackend } from '@blip2/nn';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  checkpointDir,
  listCheckpoints,
  restoreNewest,
  rotateCheckpoints,
  writeCheckpoint,
} from './checkpoint';
import { moments } from './optimizer';
import { toyParts, valuesOf } from './toy';
import type { TrainOptions, TrainState } from './train';
import { train } from './train';

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
      metrics_bytes: 5,
    });
  };
  await train(run, OPTIONS, { save });
  final = { ...(await valuesOf(run.trainables)), ...(await valuesOf(moments(run.optimizer))) };
});

/** Restores the newest good checkpoint into a fresh run and trains to the end. */
async function resume(skipped: string[] = []) {
  const run = parts();
  const onSkip = (dir: string, why: string) => void skipped.push(`${dir.slice(-6)}: ${why}`);
  const found = await restoreNewest(runDir, run.trainables, run.optimizer, onSkip);
  await train(run, OPTIONS, {}, structuredClone(found?.train)); // advances it in place
  return {
    found,
    values: { ...(await valuesOf(run.trainables)), ...(await valuesOf(moments(run.optimizer))) },
  };
}

describe('checkpoints', () => {
  it.each([3, 6, 9])('continue from step %i to bit-identical weights and moments', async (step) => {
    await rotateCheckpoints(runDir, 0, step);
    const { found, values } = await resume();
    expect(found).toMatchObject({ identity, metrics_bytes: 5, train: { step } });
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
    const skipped: string[] = [];
    const { found, values } = await resume(skipped);
    expect(found?.train.step).toBe(3);
    expect(skipped[0]).toMatch(/^000009: .*optimizer\.safetensors/s);
    expect(skipped[1]).toMatch(/^000006: state\.json is no JSON/);
    expect(values).toEqual(final);
  });

  it('change nothing when only a part of the last one left can be read', async () => {
    await rotateCheckpoints(runDir, 1);
    await truncate(join(checkpointDir(runDir, 9), 'optimizer.safetensors'), 100);
    const run = parts();
    const before = await valuesOf(run.trainables);
    expect(await restoreNewest(runDir, run.trainables, run.optimizer, () => undefined)).toBeUndefined();
    expect(await valuesOf(run.trainables)).toEqual(before);
  });

  it('are refused when other tensors trained in them, and leave the weights alone', async () => {
    const run = parts();
    run.trainables.delete('bias');
    const before = await valuesOf(run.trainables);
    const skipped: string[] = [];
    const found = await restoreNewest(
      runDir,
      run.trainables,
      run.optimizer,
      (_, why) => void skipped.push(why),
    );
    expect(found).toBeUndefined();
    expect(skipped).toHaveLength(3);
    expect(skipped[0]).toContain('bias does not train in this run');
    expect(await valuesOf(run.trainables)).toEqual(before);
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
    await restoreNewest(runDir, run.trainables, run.optimizer, () => undefined);
    expect(memory().numTensors).toBe(before);
  });
});
