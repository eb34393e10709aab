/** The memory that a plan has for a GPU is that of the counted buffers, at full size. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { registerWebGpu } from '@blip2/backend-webgpu';
import { makePlan, parseConfig } from '@blip2/trainer';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useSoftwareDriver } from '../../../packages/backend-webgpu/spec/software';
import { idleGpu } from './idle-gpu';
import { writePictures } from './pictures';
import { RANDOM_CONFIG } from './random-model';

describe.skipIf(!useSoftwareDriver())('the plan of a GPU', () => {
  let root: string;
  beforeAll(async () => {
    await registerWebGpu({ gpu: idleGpu() });
    root = await mkdtemp(join(tmpdir(), 'blip2-plan-'));
    await mkdir(join(root, 'train'));
    const files = await writePictures(join(root, 'train'), 8);
    const text = 'x'.repeat(36); // 12 tokens, as texts are estimated
    const rows = files.map((file) => `${JSON.stringify({ file_name: file.split('/').at(-1), text })}\n`);
    await writeFile(join(root, 'train/metadata.jsonl'), rows.join(''));
    await writeFile(join(root, 'config.json'), JSON.stringify(RANDOM_CONFIG));
  });
  afterAll(() => rm(root, { recursive: true }));

  it.each([
    ['float32', true, 6.32],
    ['float32', false, 8.43],
    ['int8', true, 3.66],
    ['int4', true, 2.44],
    ['int4', false, 3.54],
  ])('is within 6 %% of what gpu-memory counts: %s, cached %s', async (precision, cached, counted) => {
    const config = parseConfig({
      ...{ model: join(root, 'config.json'), data: root, backend: 'webgpu', precision, preset: 'lora' },
      ...{ per_device_train_batch_size: 4, per_device_eval_batch_size: 4, final_evaluation: 'none' },
      cache_features: cached,
    });
    const { presets, facts } = await makePlan([config], { memory: 80e9 });
    expect(facts.data.tokens.mean).toBe(12);
    expect(Math.abs(presets[0].memory.peak / 1e9 / counted - 1)).toBeLessThan(0.06);
  });
});
