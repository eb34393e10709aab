import { existsSync } from 'node:fs';
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { loadAdapter } from '@blip2/peft-lora/node';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { courseOf, TINY_MODEL, tinyConfig, tinyJob } from './tiny';
import { worldOf } from './world';
import type { FitConfig } from '../src/config';
import { fit } from '../src/fit';
import type { FitHooks } from '../src/hooks';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => {
  root = await tinyJob();
  await cp(TINY_MODEL, join(root, 'model'), { recursive: true });
  const file = join(root, 'model', 'config.json');
  const text = await readFile(file, 'utf8'); // masks differ between ranks and one process: nothing is dropped out here
  await writeFile(file, text.replaceAll(/"([a-z_]*dropout[a-z_]*)": 0\.1/g, '"$1": 0.0'));
});
afterEach(async () => rm(root, { recursive: true }));

/** Six images in a batch of all ranks, then the other two: the second rank's last batch has one image. */
const configOf = (ranks: number, given: Record<string, unknown> = {}) =>
  tinyConfig(root, {
    model: join(root, 'model'),
    lora: { lora_dropout: 0 },
    learning_rate: 2e-3,
    per_device_train_batch_size: 6 / ranks,
    eval_steps: 3,
    logging_steps: 1,
    ...given,
  });

async function adapterOf(dir: string) {
  const { lora } = await loadAdapter(join(dir, 'adapter'));
  return [...lora.values()].flatMap(({ A, B }) => [...A.data, ...B.data]);
}

/** Runs two ranks side by side; what they report is in the two lists. */
async function both(configs: FitConfig[], hooksOf: (rank: number) => FitHooks = () => ({})) {
  const reported: string[][] = [[], []];
  const results = await Promise.all(
    worldOf(2).map((world, rank) => {
      const onMessage = (text: string) => void reported[rank].push(text);
      return fit(configs[rank], { onMessage, ...hooksOf(rank) }, { world });
    }),
  );
  return { results, reported };
}

function expectClose(found: Record<string, number>[], expected: Record<string, number>[]) {
  expect(found.length).toBe(expected.length);
  found.forEach((row, i) => {
    expect(Object.keys(row)).toEqual(Object.keys(expected[i]));
    for (const [name, value] of Object.entries(expected[i])) expect(row[name], name).toBeCloseTo(value, 4);
  });
}

describe('fit in a world of two', () => {
  it.each([
    ['cached features', {}],
    ['images read at each step, accumulated', { cache_features: false, gradient_accumulation_steps: 2 }],
    ['generated texts at each evaluation', { predict_with_generate: true, metric_for_best_model: 'cider_d' }],
  ])('trains and evaluates as one process with the same global batch: %s', async (_, given) => {
    const one = configOf(1, { ...given, output_dir: join(root, 'one') });
    await fit(one);
    const before = memory().numTensors;
    const second = configOf(2, { ...given, output_dir: join(root, 'second') });
    const { results, reported } = await both([configOf(2, given), second]);
    expect(memory().numTensors).toBe(before);
    const dir = join(root, 'run');
    expectClose(await courseOf(dir), await courseOf(one.output_dir));
    const [found, expected] = [await adapterOf(dir), await adapterOf(one.output_dir)];
    found.forEach((value, i) => expect(value).toBeCloseTo(expected[i], 4));

    expect(existsSync(second.output_dir)).toBe(false); // rank 1 wrote nothing
    expect(reported[1]).toEqual([]);
    expect(results[1]).toMatchObject({ steps: results[0].steps, best: results[0].best, interrupted: false });
    expect(existsSync(results[0].report!)).toBe(true);
    expect(results[1].report).toBeUndefined();
  });

  it('stops when the signal of rank 1 alone is raised, resumes to the same bits, and refuses other batches', async () => {
    const whole = configOf(2, { output_dir: join(root, 'whole') });
    await both([whole, whole]);
    const abort = new AbortController();
    const config = configOf(2);
    const { results } = await both([config, config], (rank) => ({
      signal: rank === 1 ? abort.signal : undefined,
      onProgress: ({ step }) => void (step === 4 && abort.abort()), // of rank 0: the other one reports nothing
    }));
    expect(results).toMatchObject([
      { interrupted: true, steps: 4 },
      { interrupted: true, steps: 4 },
    ]);
    const alone = fit({ ...config, per_device_train_batch_size: 3 }, { resume: true });
    await expect(alone).rejects.toThrow(/cannot resume.*\n {2}world_size: was 2, is not set/);
    await both([config, config], () => ({ resume: true }));
    expect(await courseOf(config.output_dir)).toEqual(await courseOf(whole.output_dir));
    expect(await adapterOf(config.output_dir)).toEqual(await adapterOf(whole.output_dir));
  });

  it('goes on with another number of ranks that has the same batches', async () => {
    const whole = configOf(2, { output_dir: join(root, 'whole') });
    await both([whole, whole]);
    const abort = new AbortController();
    const config = configOf(2);
    await both([config, config], () => ({
      signal: abort.signal,
      onProgress: ({ step }) => void (step === 4 && abort.abort()),
    }));
    const said: string[] = [];
    const one = { ...config, per_device_train_batch_size: 6 };
    await fit(one, { resume: true, onMessage: (text) => void said.push(text) });
    expect(said).toContain('1 process instead of 2: the same batches, other dropout masks');
    expectClose(await courseOf(config.output_dir), await courseOf(whole.output_dir));
  });

  it.each([0, 1])(
    'stops on both when the signal of rank %i is raised while rank 0 fills the cache',
    async (told) => {
      const abort = new AbortController();
      const config = configOf(2);
      const { results } = await both([config, config], (rank) => ({
        signal: rank === told ? abort.signal : undefined,
        onPhase: ({ name }) => void (name === 'caching features' && abort.abort()),
      }));
      expect(results).toMatchObject([
        { interrupted: true, steps: 0 },
        { interrupted: true, steps: 0 },
      ]);
      expect(existsSync(config.output_dir)).toBe(told === 1); // rank 1 was waiting by then, so it stops before the first step
    },
  );
});
