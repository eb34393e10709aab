/** Runs with rounded weights on WebGPU beside native, which rounds activations too. */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useSoftwareDriver } from '../../backend-webgpu/spec/software';
import type { FitConfig } from '../src/config';
import { fit } from '../src/fit';
import { courseOf, tinyConfig, tinyJob } from './tiny';

describe.skipIf(!useSoftwareDriver())('runs with rounded weights on WebGPU', () => {
  let root: string;
  beforeAll(async () => void (root = await tinyJob()));
  afterAll(() => rm(root, { recursive: true }));

  const job = (backend: string, precision: string): FitConfig =>
    tinyConfig(root, {
      ...{ backend, precision, max_steps: 4, save_steps: 1, logging_steps: 1, final_evaluation: 'none' },
      output_dir: join(root, `${backend}-${precision}`),
    });
  const lossesOf = async ({ output_dir }: FitConfig) =>
    (await courseOf(output_dir)).flatMap(({ loss }) => loss ?? []);
  const smoothing = ({ output_dir }: FitConfig) => readFile(join(output_dir, 'smoothing.safetensors'));

  it.each(['int8', 'int4'])('have the losses of native, and continue there: %s', async (precision) => {
    const said: string[] = [];
    const whole = job('native', precision);
    await fit(whole, {});
    const made = (await readdir(join(root, 'features'))).filter((name) => name.endsWith('.safetensors'));
    const config = job('webgpu', precision);
    const abort = new AbortController();
    await fit(config, {
      signal: abort.signal,
      onMessage: (text) => void said.push(text),
      onProgress: ({ step }) => void (step === 2 && abort.abort()),
    });
    expect(said.join('\n')).toContain(`${precision} weights`);
    await fit({ ...config, backend: 'native' }, { resume: true });
    // Factors and rounded weights are those of native's run.
    expect(await smoothing(config)).toEqual(await smoothing(whole));
    expect((await readdir(join(root, 'features'))).filter((name) => name.endsWith('.safetensors'))).toEqual(
      made,
    );
    const expected = await lossesOf(whole);
    const losses = await lossesOf(config);
    expect(losses).toHaveLength(4);
    losses.forEach((loss, i) => expect(Math.abs(loss / expected[i] - 1), `step ${i + 1}`).toBeLessThan(0.02));
  });
});
