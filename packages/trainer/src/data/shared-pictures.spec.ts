/** Runs on data in which pictures have one, two and five captions, or several questions. */
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { useBackend } from '@blip2/nn/node';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { FitConfig } from '../config';
import { fit } from '../fit';
import type { FitOptions } from '../fit';

import { courseOf, TINY_MODEL, tinyConfig, tinyJob } from '../../spec/tiny';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));
afterEach(async () => rm(root, { recursive: true }));

/** How many captions each picture has; the first picture has another one at the end of the file. */
const COUNTS = [1, 2, 5, 1];
const WORDS = ['a dog', 'a cat', 'on a mat', 'the hat', 'a big red dog on the mat'];

async function captions(given: Record<string, unknown> = {}): Promise<FitConfig> {
  const file = join(root, 'several.jsonl');
  const rows = COUNTS.flatMap((count, i) =>
    WORDS.slice(0, count).map((caption) => ({ image: `train/0-${i}.png`, caption })),
  );
  rows.push({ image: 'train/0-0.png', caption: 'the dog' });
  await writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'));
  const lengths = { num_train_epochs: 2, per_device_train_batch_size: 4, logging_steps: 1 };
  return tinyConfig(root, { data: file, eval_data: file, final_evaluation: 'none', ...lengths, ...given });
}

/** The tiny model without dropout, which is drawn for positions and so differs with the layout of a batch. */
async function withoutDropout(): Promise<{ model: string; lora: object }> {
  const model = join(root, 'model');
  await cp(TINY_MODEL, model, { recursive: true });
  const file = join(model, 'config.json');
  const json = JSON.parse(await readFile(file, 'utf8')) as { text_config: object };
  Object.assign(json.text_config, { dropout: 0, attention_dropout: 0 });
  await writeFile(file, JSON.stringify(json));
  return { model, lora: { r: 4, lora_dropout: 0 } };
}

const run = async (config: FitConfig, name: string, options: FitOptions = {}) => {
  await fit({ ...config, output_dir: join(root, name) }, {}, options);
  return courseOf(join(root, name));
};

describe('a run on pictures with several captions', () => {
  it('has the same course with features from the cache as without it, and with accumulation', async () => {
    const config = await captions({ ...(await withoutDropout()), learning_rate: 1e-3 });
    const cached = await run(config, 'cached');
    expect(cached.filter(({ eval_loss }) => eval_loss !== undefined)).toHaveLength(2);
    const close = (found: Record<string, number>[]) =>
      found.forEach((row, i) =>
        Object.entries(row).forEach(([name, value]) => expect(value, name).toBeCloseTo(cached[i][name], 4)),
      );
    close(await run({ ...config, cache_features: false }, 'uncached'));
    const halves = { per_device_train_batch_size: 2, gradient_accumulation_steps: 2 };
    close(await run({ ...config, ...halves }, 'halves'));
  });

  it.each([{ preset: 'lora' }, { preset: 'qformer' }, { preset: 'lora', image_augmentation: 'crop' }])(
    'continues in the middle of an epoch exactly: %j',
    async (given) => {
      const config = await captions({ ...given, save_steps: 1, eval_steps: 2 });
      const whole = await run(config, 'whole');
      const abort = new AbortController();
      const stopAt = ({ step }: { step: number }) => void (step === 2 && abort.abort());
      await fit(config, { signal: abort.signal, onProgress: stopAt });
      await fit(config, { resume: true });
      expect(await courseOf(config.output_dir)).toEqual(whole);
    },
  );

  it('learns all captions of a list as rows of their own, or draws one in each epoch', async () => {
    const rows = await captions();
    const lists = COUNTS.map((count, i) => ({ image: `train/0-${i}.png`, captions: WORDS.slice(0, count) }));
    const data = join(root, 'lists.jsonl');
    await writeFile(data, lists.map((row) => JSON.stringify(row)).join('\n'));
    const each = lists.flatMap(({ image, captions }) => captions.map((caption) => ({ image, caption })));
    await writeFile(rows.data, each.map((row) => JSON.stringify(row)).join('\n'));
    const wanted = await run(rows, 'rows');
    const all = { ...rows, data, caption_lists: 'all' as const };
    expect(await run(all, 'all')).toEqual(wanted);
    const steps = async (config: FitConfig, name: string) =>
      (await run(config, name)).filter(({ loss }) => loss !== undefined).length;
    expect([
      wanted.filter(({ loss }) => loss !== undefined).length,
      await steps({ ...rows, data }, 'one'),
    ]).toEqual([6, 2]);
    const abort = new AbortController();
    await fit({ ...all, save_steps: 1 }, { signal: abort.signal, onProgress: () => abort.abort() });
    await expect(fit({ ...rows, data }, { resume: true })).rejects.toThrow('data: the training examples');
  });

  it('is not continued with the other order of rows', async () => {
    const config = await captions({ save_steps: 1 });
    const abort = new AbortController();
    await fit(config, { signal: abort.signal, onProgress: () => abort.abort() });
    await expect(fit({ ...config, group_captions: false }, { resume: true })).rejects.toThrow(
      'group_captions: was "auto", is not set',
    );
  });

  it('evaluates all captions of a picture, each by itself', async () => {
    const config = await captions({ max_steps: 1, learning_rate: 1e-9 });
    const [first] = (await run(config, 'many')).filter(({ eval_loss }) => eval_loss !== undefined);
    const one = await run({ ...config, per_device_eval_batch_size: 1 }, 'one');
    const [alone] = one.filter(({ eval_loss }) => eval_loss !== undefined);
    expect(first.eval_loss).toBeCloseTo(alone.eval_loss, 5);
  });

  it('shares a picture among its questions', async () => {
    const file = join(root, 'questions.jsonl');
    const rows = [0, 0, 0, 1, 2, 2].map((i, n) => ({
      ...{ image: `train/0-${i}.png`, question: `is it a ${['dog', 'cat', 'hat'][n % 3]}?` },
      answer: ['a dog', 'the hat'][n % 2],
    }));
    await writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'));
    const vqa = { data: file, eval_data: file, task: 'vqa', ...(await withoutDropout()) };
    const config = await captions({ ...vqa, per_device_train_batch_size: 6, max_steps: 2 });
    const shared = await run(config, 'shared');
    const apart = await run({ ...config, group_captions: false }, 'apart');
    shared.forEach((row, i) =>
      Object.entries(row).forEach(([name, value]) => expect(value, name).toBeCloseTo(apart[i][name], 4)),
    );
  });
});
