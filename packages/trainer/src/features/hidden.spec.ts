/** Runs with adapters on the upper layer only: what lies below is computed once, and nothing else about them changes. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { FitConfig } from '../config';
import { fit } from '../fit';
import { cacheEntries } from './entries';
import { courseOf, tinyConfig, tinyJob } from '../../spec/tiny';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));

const UPPER = { layers_to_transform: [1] };

const upper = (given: Record<string, unknown> = {}) =>
  tinyConfig(root, {
    ...{ final_evaluation: 'none', lora: UPPER, max_steps: 30, learning_rate: 2e-3, logging_steps: 1 },
    ...{ save_steps: 30, eval_steps: 10 },
    ...given,
  });

/** The rows of metrics, the trained weights and the messages about hidden states. */
async function runOf(config: FitConfig, name: string) {
  const output_dir = join(root, name);
  const messages: string[] = [];
  await fit({ ...config, output_dir }, { onMessage: (text) => void messages.push(text) });
  const weights = await readFile(join(output_dir, 'adapter', 'adapter_model.safetensors'));
  const said = messages.filter((text) => text.includes('hidden states'));
  return { course: await courseOf(output_dir), weights: weights.toString('base64'), said };
}

/** Replaces the training data by one row per caption, or by lists of captions. */
async function severalCaptions(lists: boolean): Promise<void> {
  const rows = ['0-0.png', '0-1.png', '1-2.png', '1-3.png'].flatMap((file_name, i): object[] => {
    const captions = ['a dog', 'a cat', 'on a mat', 'the hat and the dog'].slice(i % 2);
    return lists ? [{ file_name, captions }] : captions.map((text) => ({ file_name, text }));
  });
  await writeFile(
    join(root, 'train', 'metadata.jsonl'),
    rows.map((row) => JSON.stringify(row) + '\n').join(''),
  );
}

describe('the cache of hidden states', () => {
  it.for([
    ['cpu', 'float32', {}],
    ['native', 'float32', {}],
    ['native', 'float32', { cache_memory_mb: 0 }],
    ['native', 'float32', { label_smoothing_factor: 0.1, gradient_checkpointing: true, prompt: 'this is' }],
    ['native', 'bfloat16', {}],
    ['native', 'int8', { cache_memory_mb: 0 }],
  ] as const)(
    'gives the same 30 steps and weights as without it, bit by bit (%s, %s, %o)',
    async ([backend, precision, given], { skip }) => {
      const started = await useBackend(backend, { precision }).then(Boolean, () => false);
      skip(!started, `no backend ${backend} with ${precision} here`);
      const config = upper({ backend, precision, ...given });
      const plain = await runOf({ ...config, cache_features: false }, 'plain');
      const cold = await runOf(config, 'cold');
      const warm = await runOf(config, 'warm');
      await useBackend('cpu');
      expect(plain.course).toHaveLength(33);
      expect([cold.course, cold.weights]).toEqual([plain.course, plain.weights]);
      expect([warm.course, warm.weights]).toEqual([plain.course, plain.weights]);
      const where = 'cache_memory_mb' in given ? 'read batch by batch' : 'held in memory';
      const [made, counted] = cold.said;
      expect(made).toMatch(
        /^feature cache: hidden states before layer 1 of 12 images and 12 texts, 0\.0 MiB in /,
      );
      expect(made).toContain(`${where}; made when they are first needed`);
      expect(counted).toMatch(/^hidden states of images and texts: 24 computed, \d{3} reused$/);
      expect(warm.said[1]).toMatch(/^hidden states of images and texts: 0 computed, \d{3} reused$/);
      expect(plain.said).toEqual([]);
    },
  );

  it.each([
    ['a row for each caption, grouped', false, {}],
    ['a row for each caption, shuffled', false, { group_captions: false }],
    ['lists of captions, one drawn at random', true, {}],
  ])('is exact with several captions of a picture: %s', async (_, lists, given) => {
    await severalCaptions(lists);
    const config = upper(given);
    const plain = await runOf({ ...config, cache_features: false }, 'plain');
    const cold = await runOf(config, 'cold');
    expect([cold.course, cold.weights]).toEqual([plain.course, plain.weights]);
    // 4 pictures with 4, 3, 4 and 3 captions, and 4 of one caption for validation
    expect(cold.said[0]).toContain('8 images and 18 texts');
    expect(cold.said[1]).toContain(' 26 computed, ');
  });

  it('is not there if something below trains, or if augmentation changes the pictures', async () => {
    for (const given of [{ lora: {} }, { preset: 'lora+qformer' }, { also_train: ['layers.0.fc1'] }])
      expect((await runOf(upper({ max_steps: 1, ...given }), JSON.stringify(given))).said).toEqual([]);
    const augmented = await runOf(upper({ max_steps: 1, image_augmentation: 'crop' }), 'augmented');
    expect(augmented.said).toEqual([]);
  });

  it('stops and continues with the same numbers, and refuses to continue with other frozen layers', async () => {
    const config = upper({ max_steps: 8, save_steps: 4 });
    const whole = await runOf(config, 'whole');
    const output_dir = join(root, 'legs');
    const abort = new AbortController();
    const onProgress = ({ step }: { step: number }) => void (step === 5 && abort.abort());
    await fit({ ...config, output_dir }, { signal: abort.signal, onProgress });
    await fit({ ...config, output_dir }, { resume: true });
    expect(await courseOf(output_dir)).toEqual(whole.course);
    const other = { ...config, output_dir, lora: { ...config.lora!, layers_to_transform: [0, 1] } };
    await expect(fit(other, { resume: true })).rejects.toThrow(/frozen_layers: was 1, is not set/);
  });

  it('computes an entry again that is damaged, and keeps to its limits', async () => {
    const config = upper({ max_steps: 4 });
    const first = await runOf(config, 'first');
    const [dir] = (await readdir(config.cache_dir!)).filter((name) => name.startsWith('hidden_states-'));
    const names = await readdir(join(config.cache_dir!, dir), { recursive: true });
    const files = names
      .filter((name) => name.endsWith('.f32'))
      .map((name) => join(config.cache_dir!, dir, name));
    expect(files.filter((file) => file.endsWith('-text.f32'))).toHaveLength(files.length / 2);
    const listed = (await cacheEntries(config.cache_dir!)).find(({ kind }) => kind === 'hidden_states');
    expect(listed).toMatchObject({ pictures: files.length / 2, in_use: false });
    expect(listed!.path).toContain(dir);
    const damaged = [
      files.find((file) => file.endsWith('-text.f32'))!,
      files.find((file) => !file.includes('-text'))!,
    ];
    for (const file of damaged) {
      const bytes = await readFile(file);
      bytes[40] ^= 1;
      await writeFile(file, bytes);
    }
    const again = await runOf(config, 'again');
    expect([again.course, again.weights]).toEqual([first.course, first.weights]);
    expect(again.said[1]).toContain(': 2 computed, ');
    const none = await runOf({ ...config, cache_limit_mb: 0.005, cache_memory_mb: 0.005 }, 'none');
    expect(none.said).toEqual([
      expect.stringMatching(
        /^feature cache: no hidden states before layer 1 of 12 images .*, which are above cache_limit_mb \(0\.005\) with the features; these layers run at each step$/,
      ),
    ]);
    expect([none.course, none.weights]).toEqual([first.course, first.weights]);
  });

  it('stays in memory when its folder cannot be written', async () => {
    const messages: string[] = [];
    const cache_dir = join(root, 'file');
    await writeFile(cache_dir, '');
    await fit(upper({ max_steps: 1, cache_dir }), { onMessage: (text) => void messages.push(text) });
    expect(
      messages.filter((text) => /file cannot be written \(ENOTDIR.*kept in memory only/.test(text)),
    ).toHaveLength(2);
    expect(messages).toContainEqual(expect.stringMatching(/hidden states .* in memory only; made when/));
  });
});
