/** The GPU that only counts has the buffers of one that computes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '@blip2/blip2/node';
import { describe, expect, it } from 'vitest';
import { useSoftwareDriver } from '../../../packages/backend-webgpu/spec/software';
import { bundle } from '../../../tsup.config';
import { gpuMemoryTable } from './gpu-memory';
import { stepOf } from './sides';
import { runSteps } from './step';
import { syntheticBatch, writeWork } from './work';

const TINY = fileURLToPath(new URL('../../../packages/blip2/fixtures/tiny', import.meta.url));
const say = () => undefined;

describe.skipIf(!useSoftwareDriver())('memory of a GPU that is not there', () => {
  it('is that of SwiftShader within a tenth, in each phase', { timeout: 120_000 }, async () => {
    const dir = await mkdtemp(join(tmpdir(), 'blip2-counted-'));
    const bin = await bundle(new URL('./bin.ts', import.meta.url));
    const work = join(dir, 'work.safetensors');
    await writeWork(work, [syntheticBatch(await loadConfig(TINY), { batch: 4, text: 6, seed: 1 })]);
    const run = {
      model: TINY,
      work,
      preset: 'lora',
      steps: 3,
      features: 'ready',
      precision: 'float32',
    } as const;
    const sides = { python: '', threads: 1, attention: 'sdpa', device: 'cpu', bin, say } as const;
    const counted = (await stepOf({ ...sides, backend: 'counting' }, 'ours', run)).gpu_phases!;
    const own = { threads: 1, lr: 1e-4, noDropout: false, kernels: false } as const;
    const computed = (await runSteps({ ...run, ...own, backend: 'webgpu' })).gpu_phases!;
    expect(computed[2]).toBeGreaterThan(50_000);
    computed.forEach((bytes, i) =>
      expect(Math.abs(counted[i] - bytes), `phase ${i}`).toBeLessThan(bytes / 10 + 1),
    );
    const table = await gpuMemoryTable({
      ...{ dir, model: TINY, bin, precisions: ['int4'], presets: ['qformer'], batches: [2], texts: [5], say },
    });
    expect(table).toMatch(/\| qformer, int4 +\| +2 \| +5 \|/);
    await rm(dir, { recursive: true });
  });
});
