/** Runs in int8 and int4: they continue with the weights that they began with, and their results are used with these. */
import { cp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readSmoothing, writeSmoothing } from '@blip2/blip2/node';
import { memory } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FitConfig } from '../config';
import { fit } from '../fit';
import { smoothingOfRun } from '../model/smoothing';
import { courseOf, tinyConfig, tinyJob, withVocabulary } from '../../spec/tiny';

const backends = await availableBackends();

describe.skipIf(!backends.includes('native'))('runs in int8', () => {
  let root: string;
  let said: string[];
  const hooks = { onMessage: (text: string) => void said.push(text) };
  const int8 = (given: Record<string, unknown> = {}) =>
    tinyConfig(root, {
      ...{ backend: 'native', precision: 'int8', max_steps: 4, save_steps: 1, final_evaluation: 'none' },
      ...given,
    });
  const smoothing = (config: FitConfig) => readFile(join(config.output_dir, 'smoothing.safetensors'));
  const adapter = ({ output_dir }: FitConfig) =>
    readFile(join(output_dir, 'adapter/adapter_model.safetensors'));

  beforeEach(async () => {
    root = await tinyJob();
    said = [];
  });
  afterEach(async () => {
    await rm(root, { recursive: true });
    await useBackend('cpu');
  });

  /** Stops a run after its second update. */
  async function stopped(config: FitConfig): Promise<FitConfig> {
    const abort = new AbortController();
    await fit(config, { signal: abort.signal, onProgress: ({ step }) => void (step === 2 && abort.abort()) });
    return config;
  }

  it.each([
    ['lora', 'int8'],
    ['lora+qformer', 'int8'],
    ['lora', 'int4'],
  ])('continue exactly, also without the cache: %s, %s', async (preset, precision) => {
    const whole = int8({ preset, precision, output_dir: join(root, 'whole') });
    await fit(whole, hooks);
    const [, printed, chosen, plain] =
      /(int\d) weights: smoothed, mean error of \d+ layers (\d+\.\d\d) % \((\d+\.\d\d) % without\) on 8 training rows/.exec(
        said.join('\n'),
      )!;
    expect(printed).toBe(precision);
    expect(Number(chosen)).toBeLessThanOrEqual(Number(plain));
    expect(Number(plain) > 2).toBe(precision === 'int4');
    const config = await stopped(int8({ preset, precision }));
    await rm(config.cache_dir!, { recursive: true });
    await fit(config, { ...hooks, resume: true });
    expect(await adapter(config)).toEqual(await adapter(whole));
    expect(await courseOf(config.output_dir)).toEqual(await courseOf(whole.output_dir));
    expect(await smoothing(config)).toEqual(await smoothing(whole));
  });

  it('measure once for the same rows', async () => {
    for (const name of ['one', 'two'])
      await fit(int8({ output_dir: join(root, name), seed: name.length }), hooks);
    expect(said.filter((text) => text.includes('smoothed'))).toHaveLength(1);
    const names = await readdir(join(root, 'features'));
    expect(names.filter((name) => name.endsWith('.safetensors'))).toHaveLength(2);
    await cp(join(root, 'train/0-1.png'), join(root, 'train/0-0.png'));
    await fit(int8({ output_dir: join(root, 'three') }), hooks);
    expect(said.filter((text) => text.includes('smoothed'))).toHaveLength(2);
  });

  it('keep their weights when their pictures changed', async () => {
    const config = await stopped(int8({ cache_features: false }));
    const before = await smoothing(config);
    for (const name of await readdir(join(root, 'train')))
      if (name.endsWith('.png')) await cp(join(root, 'test/0-3.png'), join(root, 'train', name));
    await fit(config, { ...hooks, resume: true });
    expect(said.join('\n')).not.toContain('smoothed');
    expect(await smoothing(config)).toEqual(before);
  });

  it('are not continued with other factors, or none', async () => {
    const config = await stopped(int8());
    const file = join(config.output_dir, 'smoothing.safetensors');
    const bytes = await readFile(file);
    const { factors, exact } = await readSmoothing(file);
    const [name, values] = [...factors][0];
    await writeSmoothing(file, {
      factors: new Map(factors).set(
        name,
        values.map((x) => 2 * x),
      ),
      exact,
    });
    const resume = () => fit(config, { ...hooks, resume: true });
    await expect(resume()).rejects.toThrow('expected the factors that the run began with, found others');
    await rm(file);
    await expect(resume()).rejects.toThrow(
      /smoothing\.safetensors: cannot resume in int8: .*\nRestore this file/,
    );
    await writeFile(file, bytes);
    expect((await resume()).steps).toBe(4);
  });

  const pick = ({ numTensors, numBytesStored }: ReturnType<typeof memory>) => ({
    ...{ numTensors, numBytesStored },
  });

  it('free the copy of an output layer that is large enough to have one', async () => {
    const model = join(root, 'model');
    await withVocabulary(model, 44_000);
    await useBackend('native', { precision: 'int8' });
    const held = () => pick(memory());
    const before = held();
    const config = int8({ model, final_evaluation: 'test', predict_with_generate: true, eval_steps: 2 });
    const { table } = await fit(config, hooks);
    expect(table!.n).toBe(4);
    expect(held()).toEqual(before);
    const [file] = (await readdir(config.cache_dir!)).filter((name) => /^int8-.*\.safetensors$/.test(name));
    expect((await stat(join(config.cache_dir!, file))).size).toBeGreaterThan(2 ** 20);
  });

  it('start from the adapter of another run, at its loss', async () => {
    const lora = { target_modules: ['q_proj', 'v_proj'] };
    const first = int8({ lora, eval_steps: 4 });
    await fit(first, hooks);
    const from = join(first.output_dir, 'adapter');
    const second = int8({ ...first, adapter: from, output_dir: join(root, 'second'), learning_rate: 1e-30 });
    await fit(second, hooks);
    const last = async ({ output_dir }: FitConfig) =>
      (await courseOf(output_dir)).flatMap(({ eval_loss }) => eval_loss ?? []).at(-1);
    expect(await last(second)).toBe(await last(first));
    expect(await smoothingOfRun(from)).toEqual(await smoothingOfRun(join(second.output_dir, 'adapter')));
  });
});
