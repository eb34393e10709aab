/** What a plan knows of data in which pictures have several captions. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { textIds } from '@blip2/blip2';
import { loadConfig } from '@blip2/blip2/node';
import { loadProcessor } from '@blip2/data-captions';
import { useBackend } from '@blip2/nn/node';
import { afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { FitConfig } from '../config';
import { TINY_MODEL, tinyConfig, tinyJob } from '../../spec/tiny';
import { makePlan } from '.';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));
afterEach(async () => rm(root, { recursive: true }));

const WORDS = ['a dog', 'a cat', 'on a mat', 'the hat'];

async function factsOf(lists: boolean, given: Record<string, unknown> = {}) {
  const data = join(root, 'several.jsonl');
  const rows = [0, 1, 2, 3].flatMap((i): object[] => {
    const image = `train/0-${i}.png`;
    return lists ? [{ image, captions: WORDS }] : WORDS.map((caption) => ({ image, caption }));
  });
  await writeFile(data, rows.map((row) => JSON.stringify(row)).join('\n'));
  const config = tinyConfig(root, {
    data,
    final_evaluation: 'none',
    per_device_train_batch_size: 4,
    ...given,
  });
  return makePlan([config]);
}

it('counts pictures that rows of a batch share, and tokens without pads', async () => {
  const { facts } = await factsOf(false);
  expect(facts.data).toMatchObject({ rows: 16, pictures: 4, pictures_per_row: 0.25 });
  const { tokenizer } = await loadProcessor(TINY_MODEL, textIds(await loadConfig(TINY_MODEL)));
  const lengths = WORDS.map((text) => 1 + tokenizer.encode(text).length + 1); // with start and end
  expect(new Set(lengths).size).toBeGreaterThan(1);
  const mean = lengths.reduce((a, b) => a + b, 0) / 4;
  expect(facts.data.tokens).toEqual({ mean, most: mean });
  expect(facts.data.taught).toEqual({ pictures: 4, texts: 16, tokens: 16 * mean });
  const shuffled = (await factsOf(false, { group_captions: false })).facts.data;
  expect(shuffled.pictures_per_row).toBeGreaterThan(0.4);
});

it('has a row for each caption of a list, if all are learned', async () => {
  const one = (await factsOf(true)).facts.data;
  expect(one).toMatchObject({ rows: 4, pictures_per_row: 1, taught: { pictures: 4, texts: 16 } });
  const all = (await factsOf(true, { caption_lists: 'all' })).facts.data;
  expect(all).toEqual((await factsOf(false)).facts.data);
});

it('has a row for LoRA in the upper layers where presets are compared, from sizes alone', async () => {
  const sizes = JSON.parse(await readFile(join(TINY_MODEL, 'config.json'), 'utf8')) as {
    text_config: object;
  };
  const model = join(root, 'config.json');
  await writeFile(
    model,
    JSON.stringify({ ...sizes, text_config: { ...sizes.text_config, num_hidden_layers: 4 } }),
  );
  const config = (given: Record<string, unknown>) =>
    tinyConfig(root, { model, final_evaluation: 'none', ...given });
  const namesOf = async (...configs: [FitConfig, ...FitConfig[]]) =>
    (await makePlan(configs)).presets.map(({ name }) => name);
  const [lora, qformer] = [config({}), config({ preset: 'qformer' })];
  expect(await namesOf(lora, qformer)).toEqual(['lora', 'lora, upper 2 layers', 'qformer']);
  expect(await namesOf(lora)).toEqual(['lora']);
  const chosen = config({ lora: { layers_to_transform: 3 } });
  expect(await namesOf(chosen, qformer)).toEqual(['lora, upper 1 layer', 'qformer']);
  const pattern = config({ lora: { target_modules: '.*q_proj' } });
  expect(await namesOf(pattern, qformer)).toEqual(['lora', 'qformer']);
  const [all, upper] = (await makePlan([lora, qformer])).presets;
  expect(upper).toMatchObject({ preset: 'lora', parameters: all.parameters / 2 });
  expect(upper.cache.hidden).toMatchObject({ depth: 2, kept: 'memory and disk' });
  expect(upper.time!.cold.features).toBeGreaterThan(all.time!.cold.features);
});
