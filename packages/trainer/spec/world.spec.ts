import { existsSync, writeFileSync } from 'node:fs';
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { loadAdapter } from '@blip2/peft-lora/node';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { courseOf, TINY_MODEL, tinyConfig, tinyJob } from './tiny';
import { worldOf } from './world';
import type { FitConfig } from '../src/config';
import type { generateCaptions } from '../src/evaluation';
import { fit } from '../src/fit';
import type { FitHooks } from '../src/hooks';
import { listCheckpoints } from '../src/run/checkpoint';

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

  it('ends early on both at the same step', async () => {
    const stop = { early_stopping_patience: 2, early_stopping_threshold: 0.5, eval_steps: 1 };
    const config = configOf(2, { ...stop, learning_rate: 1e-9, num_train_epochs: 9 });
    const { results } = await both([config, config]);
    expect(results).toMatchObject([
      { ended: 'early stopping', steps: 3 },
      { ended: 'early stopping', steps: 3 },
    ]);
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
    'stops on both when the signal of rank %i is raised while they fill the cache',
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
    },
  );

  it('computes each feature on one rank, and finds all of them afterwards', async () => {
    const config = configOf(2, { max_steps: 2, cache_dir: join(root, 'cache') });
    const { reported } = await both([config, config]);
    expect(reported[0].join('\n')).toMatch(/: 0 found, 8 computed, 8 left to other processes/);
    const again = configOf(1, {
      max_steps: 2,
      cache_dir: join(root, 'cache'),
      output_dir: join(root, 'again'),
    });
    const seen: string[] = [];
    await fit(again, { onMessage: (text) => void seen.push(text) });
    expect(seen.join('\n')).toMatch(/: 16 found, 0 computed/);
  });

  it('divides the texts of the evaluations and of the controls', async () => {
    const asked: string[][] = [[], []];
    const generateOn =
      (rank: number): typeof generateCaptions =>
      async (_model, _processor, examples, o) => {
        asked[rank].push(...examples.map(({ image }) => image));
        await o.embeds?.(examples.map((_, i) => i));
        return examples.map(({ image }) => `a ${image.length} ${o.first_row}`);
      };
    const given = { predict_with_generate: true, sample_steps: 3, per_device_eval_batch_size: 3 };
    const one = configOf(1, { ...given, output_dir: join(root, 'one') });
    const whole = await fit(one, {}, { generate: generateOn(0) });
    const total = asked[0].length;
    asked[0] = [];
    const config = configOf(2, given);
    const [found] = await Promise.all(
      worldOf(2).map((world, rank) => fit(config, {}, { world, generate: generateOn(rank) })),
    );
    expect(found.table).toEqual(whole.table);
    expect(asked[0].length + asked[1].length).toBe(total);
    expect(asked[1].length).toBeGreaterThan(total / 5);
  });

  it('stops on both when the signal of rank 1 alone is raised during the last texts', async () => {
    const abort = new AbortController();
    const generateOn =
      (rank: number): typeof generateCaptions =>
      async (_model, _processor, examples, o) => {
        if (rank === 1 && existsSync(join(config.output_dir, 'checkpoints'))) abort.abort();
        o.signal?.throwIfAborted();
        return examples.map(() => 'a dog');
      };
    const config = configOf(2, { max_steps: 2, per_device_eval_batch_size: 1 });
    const results = await Promise.all(
      worldOf(2).map((world, rank) =>
        fit(config, rank === 1 ? { signal: abort.signal } : {}, { world, generate: generateOn(rank) }),
      ),
    );
    expect(results).toMatchObject([{ interrupted: true }, { interrupted: true }]);
    expect(existsSync(join(config.output_dir, 'results.json'))).toBe(false);
  });

  it('saves on rank 0 when the texts of an evaluation fail on rank 1 alone', async () => {
    const config = configOf(2, { predict_with_generate: true, max_steps: 3, per_device_eval_batch_size: 1 });
    const generateOn =
      (rank: number): typeof generateCaptions =>
      async (_model, _processor, examples) => {
        if (rank === 1) throw new Error('the disk is gone');
        return examples.map(() => 'a dog');
      };
    const [first] = worldOf(2).map((world, rank) => fit(config, {}, { world, generate: generateOn(rank) }));
    await expect(first).rejects.toThrow(
      /process 2 of 2 failed: Error: the disk is gone\nThe weights after step 3 were saved in .*step-000003/,
    );
    expect(await listCheckpoints(config.output_dir)).toContain(3);
  });

  it('has rank 1 wait until rank 0 has saved, also when all were asked to stop before the error', async () => {
    const config = configOf(2, { predict_with_generate: true, max_steps: 3, per_device_eval_batch_size: 1 });
    const stop = new AbortController();
    const generateOn =
      (rank: number): typeof generateCaptions =>
      async (_model, _processor, examples) => {
        if (rank === 0) return examples.map(() => 'a dog');
        stop.abort();
        throw new Error('the disk is gone');
      };
    const [first, second] = worldOf(2).map((world, rank) =>
      fit(config, { signal: stop.signal }, { world, generate: generateOn(rank) }),
    );
    const ended = second.catch(() => 'ended');
    await expect(first).rejects.toThrow(/the disk is gone\nThe weights after step 3 were saved/);
    expect(await Promise.race([ended, Promise.resolve('waits')])).toBe('waits');
  });

  it('saves on rank 0 when a picture can no longer be read, and goes on to the same bits when it can', async () => {
    const settings = { cache_features: false, num_train_epochs: 3, save_steps: 99 };
    const whole = configOf(2, { ...settings, output_dir: join(root, 'whole') });
    await both([whole, whole]);
    const config = configOf(2, settings);
    const picture = join(root, 'train', '0-0.png');
    const bytes = await readFile(picture);
    const cut = ({ step }: { step: number }) =>
      void (step === 2 && writeFileSync(picture, bytes.subarray(0, 60)));
    const [first] = worldOf(2).map((world) => fit(config, { onProgress: cut }, { world }));
    await expect(first).rejects.toThrow(
      /0-0\.png[^]*\nThe weights after step \d were saved in .*continue with --resume/,
    );
    await writeFile(picture, bytes);
    await both([config, config], () => ({ resume: true }));
    expect(await courseOf(config.output_dir)).toEqual(await courseOf(whole.output_dir));
    expect(await adapterOf(config.output_dir)).toEqual(await adapterOf(whole.output_dir));
  });

  it('ends on all when a picture of one cannot be read for the cache', async () => {
    const picture = join(root, 'train', '1-1.png');
    await writeFile(picture, (await readFile(picture)).subarray(0, 60));
    const config = configOf(2, { cache_dir: join(root, 'cache') });
    const [first] = worldOf(2).map((world) => fit(config, {}, { world }));
    await expect(first).rejects.toThrow(/1-1\.png/);
  });
});
