/** Whole runs of a model for retrieval: learning, resuming, saving, what is refused. */
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { flatten, memory } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { loadRetrievalModel } from '@blip2/retrieval/node';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { courseOf, jsonLines, TINY_MODEL, tinyConfig, tinyJob } from '../../spec/tiny';
import { TINY_RETRIEVAL, tinyPairs } from '../../spec/tiny-retrieval';
import { chooseConfig } from '../choose';
import { fit } from '../fit';
import type { RunResults, SampleRow } from '../report';
import { alone } from '../train/world';

// The fastest backend is enough; retrieval's suite compares the backends.
const backend = (await availableBackends()).includes('native') ? 'native' : 'cpu';
let root: string;
beforeAll(async () => void (await useBackend(backend)));
beforeEach(async () => void (root = await tinyJob()));
afterEach(async () => rm(root, { recursive: true }));
const pairs = (given: Record<string, unknown> = {}) => tinyPairs(root, { backend, ...given });
const LEARNS = { max_steps: 80, eval_steps: 80, save_steps: 80, learning_rate: 0.01 };

describe('fit of a model for retrieval', () => {
  it('learns which caption belongs to which picture, shows it beside controls, and leaves no tensors', async () => {
    const tensors = memory().numTensors;
    const messages: string[] = [];
    const config = pairs({ ...LEARNS, controls: true, sample_steps: 80 });
    const { table, verdict, next, saved } = await fit(config, {
      onMessage: (text) => void messages.push(text),
    });
    expect(memory().numTensors).toBe(tensors);
    expect(messages).toContainEqual(expect.stringMatching(/^feature cache: image_features of 16 images/));
    const rows = Object.fromEntries(table!.rows.map((row) => [row.name, row]));
    expect(table).toMatchObject({ score: 'recall at 1', n: 4, texts: 4 });
    expect(rows['fine-tuned'].exact).toBeGreaterThanOrEqual(0.75);
    expect(rows['fine-tuned'].parts['text R@5']).toBe(1);
    expect(rows['base, before training'].exact).toBeLessThanOrEqual(0.5);
    expect(rows['shuffled images'].exact).toBeLessThanOrEqual(0.25);
    expect(rows.chance).toMatchObject({ exact: 0.25, parts: { 'text R@1': 0.25, 'image R@5': 1 } });
    expect(verdict).toMatchObject({ headline: 'recall', pictures: 4, outcome: 'unclear' }); // too few pictures
    expect(next!.command).toEqual(['data', 'check', root]);
    const samples = await jsonLines<SampleRow>(join(config.output_dir, 'samples.jsonl'));
    expect(samples.filter(({ after, reference }) => after === reference).length).toBeGreaterThanOrEqual(3);
    const course = await jsonLines<{ text: string }>(join(config.output_dir, 'training-samples.jsonl'));
    expect(course).toHaveLength(8);
    const report = await readFile(join(config.output_dir, 'report.html'), 'utf8');
    expect(report).toContain('recall at 1');
    const results = JSON.parse(await readFile(join(config.output_dir, 'results.json'), 'utf8')) as RunResults;
    expect(results.table).toEqual(JSON.parse(JSON.stringify(table)));

    const [base, model] = [await loadRetrievalModel(TINY_RETRIEVAL), await loadRetrievalModel(saved!)];
    const changed = (name: string) =>
      !Object.is(
        String(flatten(base.params).get(name)!.dataSync()),
        String(flatten(model.params).get(name)!.dataSync()),
      );
    expect([...flatten(model.params).keys()]).toEqual([...flatten(base.params).keys()]);
    expect(changed('vision_model.embeddings.position_embedding')).toBe(false);
    for (const name of ['itm_head.weight', 'text_projection.bias', 'embeddings.word_embeddings.weight'])
      expect(changed(name), name).toBe(true);
  });

  it.each([
    { preset: 'qformer', learning_rate: 0.003, gradient_accumulation_steps: 2 },
    { preset: 'lora', lora: { r: 4 }, image_augmentation: 'crop' },
    { preset: 'full', learning_rate: 0.001, cache_features: false },
  ])('continues exactly where it stopped: %j', async (given) => {
    const config = pairs({ ...given, max_steps: 4, save_steps: 1, final_evaluation: 'none' });
    const abort = new AbortController();
    await fit(config, { signal: abort.signal, onProgress: ({ step }) => void (step === 2 && abort.abort()) });
    await fit(config, { resume: true });
    const course = await courseOf(config.output_dir);
    await fit({ ...config, output_dir: join(root, 'whole') });
    expect(course).toEqual(await courseOf(join(root, 'whole')));
  });

  it('has the same course with cached features as without', async () => {
    const config = pairs({ max_steps: 4, logging_steps: 1, final_evaluation: 'none' });
    await fit(config);
    await fit({ ...config, cache_features: false, output_dir: join(root, 'uncached') });
    const [cached, uncached] = [await courseOf(config.output_dir), await courseOf(join(root, 'uncached'))];
    uncached.forEach((row, i) =>
      Object.entries(row).forEach(([name, value]) => expect(value, name).toBeCloseTo(cached[i][name], 4)),
    );
  });

  it('saves adapters of the Q-Former alone, which a further run starts from', async () => {
    const config = pairs({ preset: 'lora', lora: { r: 4, lora_dropout: 0 }, max_steps: 6, eval_steps: 6 });
    const { saved } = await fit(config);
    const adapter = await loadAdapter(saved!);
    expect([...adapter.lora.keys()]).toHaveLength(10); // query and value: 3 of self-attention, 2 of cross-attention
    expect([...adapter.tensors.keys()]).toEqual([]);
    const base = await loadRetrievalModel(TINY_RETRIEVAL);
    applyAdapter(base.params, adapter, { ties: [] });
    const raw = { ...config, lora: undefined, adapter: saved, max_steps: 1, output_dir: join(root, 'again') };
    const { config: again } = await chooseConfig(raw, { only: 'task' });
    const messages: string[] = [];
    const { table } = await fit(again, { onMessage: (text) => void messages.push(text) });
    expect(messages).toContain(`starting from the adapter ${saved}`);
    expect(table!.rows[0].name).toBe('fine-tuned');
  });

  it('trains pairs of which some belong together, and a last batch of one', async () => {
    const file = join(root, 'few.jsonl');
    const rows = [0, 0, 1, 2, 3].map((i, n) => ({
      image: `train/0-${i}.png`,
      caption: ['a dog', 'a big dog', 'a dog', 'a cat', 'the hat'][n],
    }));
    await writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'));
    const config = pairs({ data: file, max_steps: 4, logging_steps: 1, final_evaluation: 'none' });
    await fit(config);
    const losses = (await courseOf(config.output_dir)).flatMap(({ loss }) => loss ?? []);
    expect(losses).toHaveLength(4);
    expect(losses.every(Number.isFinite)).toBe(true);
  });
});

describe('what a model for retrieval cannot', () => {
  it.each([
    [
      { preset: 'lora+qformer' },
      'puts adapters into a language model, which a model for retrieval does not have',
    ],
    [{ task: 'vqa' }, 'task: expected caption, found vqa'],
    [{ prompt: 'a photo of' }, 'prompt: leave it out'],
    [{ predict_with_generate: true }, 'predict_with_generate: leave it out'],
    [{ parts_pattern: '(?<a>x)' }, 'parts_pattern: leave it out'],
    [{ generation: { num_beams: 3 } }, 'generation: leave it out'],
    [{ label_smoothing_factor: 0.2 }, 'label_smoothing_factor: leave it out'],
    [{ precision: 'int8' }, 'precision: expected float32, bfloat16 or auto, found int8'],
    [{ per_device_train_batch_size: 1 }, 'per_device_train_batch_size: expected at least 2, found 1'],
    [{ also_train: ['language_model'] }, 'language_model'],
    [{ preset: 'lora', lora: { target_modules: ['q_proj'] } }, 'q_proj'],
  ])('%j is refused before anything is written', async (given, message) => {
    await expect(fit(pairs(given))).rejects.toThrow(message);
    await expect(readFile(join(root, 'run', 'config.yaml'))).rejects.toThrow('ENOENT');
  });

  it('data with one picture, or one caption', async () => {
    const file = join(root, 'one.jsonl');
    const row = (image: number, caption: string) =>
      JSON.stringify({ image: `train/0-${image}.png`, caption });
    for (const rows of [
      [row(0, 'a dog'), row(0, 'a cat')],
      [row(0, 'a dog'), row(1, 'a dog')],
    ]) {
      await writeFile(file, rows.join('\n'));
      await expect(fit(pairs({ data: file }))).rejects.toThrow('at least two pictures and two captions');
    }
  });

  it('a checkpoint that reads only texts, and several processes', async () => {
    const model = join(root, 'model');
    await cp(TINY_RETRIEVAL, model, { recursive: true });
    const file = join(model, 'config.json');
    const json = JSON.parse(await readFile(file, 'utf8')) as object;
    await writeFile(file, JSON.stringify({ ...json, architectures: ['Blip2TextModelWithProjection'] }));
    await expect(fit(pairs({ model }))).rejects.toThrow('found Blip2TextModelWithProjection');
    const two = { ...alone, size: 2, rank: 1 };
    await expect(fit(pairs(), {}, { world: two })).rejects.toThrow('trains in one process');
  });

  it('a model for captions has no recall', async () => {
    const config = tinyConfig(root, { model: TINY_MODEL, metric_for_best_model: 'r_mean' });
    await expect(fit(config)).rejects.toThrow('eval_r_mean is the recall of a model for retrieval');
  });
});
