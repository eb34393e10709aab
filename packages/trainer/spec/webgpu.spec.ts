/** Checkpoints of one backend continue on another. */
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { useBackend } from '@blip2/nn/node';
import { describe, expect, it } from 'vitest';
import { useSoftwareDriver } from '../../backend-webgpu/spec/software';
import { findCheckpoint, restoreCheckpoint, writeCheckpoint } from '../src/run/checkpoint';
import { moments } from '../src/train/optimizer';
import { train } from '../src/train/train';
import type { TrainOptions, TrainState } from '../src/train/train';
import { toyParts, valuesOf } from './toy';

const options: TrainOptions = {
  totalSteps: 9,
  gradient_accumulation_steps: 1,
  seed: 1,
  logging_steps: 2,
  eval_steps: 99,
  save_steps: 3,
};
type Backend = 'native' | 'webgpu';

/** Trains to `totalSteps` from the newest checkpoint of the folder, and returns weights and moments. */
async function run(backend: Backend, folder: string, totalSteps: number): Promise<Record<string, number[]>> {
  await useBackend(backend);
  const parts = toyParts({ batch: 2, rate: 0.2 });
  const { found } = await findCheckpoint(folder);
  if (found) await restoreCheckpoint(found, parts.trainables, parts.optimizer);
  const identity = { settings: { seed: 1 }, base: 'b', data: 'd', backend };
  const save = async (state: TrainState) => {
    await writeCheckpoint(folder, parts.trainables, parts.optimizer, { train: state, identity, logs: {} });
  };
  await train(parts, { ...options, totalSteps }, { save }, structuredClone(found?.train));
  return { ...(await valuesOf(parts.trainables)), ...(await valuesOf(moments(parts.optimizer))) };
}

const folderOf = () => mkdtemp(join(tmpdir(), 'blip2-webgpu-'));

describe.skipIf(!useSoftwareDriver())('checkpoints and WebGPU', () => {
  it.each([
    ['native', 'webgpu'],
    ['webgpu', 'native'],
  ] as const)('begun on %s, continue on %s', async (first, second) => {
    const expected = await run(first, await folderOf(), 9);
    const folder = await folderOf();
    await run(first, folder, 6);
    expect((await findCheckpoint(folder)).found?.train.step).toBe(6);
    const found = await run(second, folder, 9);
    expect(Object.keys(found)).toEqual(Object.keys(expected));
    for (const [name, values] of Object.entries(expected))
      values.forEach((value, i) =>
        expect(Math.abs(found[name][i] - value), `${name}[${i}]`).toBeLessThan(
          1e-5 * Math.max(1, Math.abs(value)),
        ),
      );
  });
});
