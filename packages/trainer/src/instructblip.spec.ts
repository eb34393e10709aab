/** A whole job with InstructBLIP: the instruction reaches Q-Former and text model, and nothing that depends on it is cached for a picture. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { adapterBase, textIds } from '@blip2/blip2';
import { loadConfig, loadFolder } from '@blip2/blip2/node';
import { batches, loadProcessor, openDataset, readyDataset } from '@blip2/data-captions';
import { flatten, memory } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { jsonLines, TINY_MODEL, tinyConfig, tinyJob } from '../spec/tiny';
import { fromYaml } from './config';
import { generateCaptions } from './evaluation';
import { fit } from './fit';
import { generationCost, stepCost } from './plan/calibrate';
import { tokenRows } from './plan/small-model';

const MODEL = `${TINY_MODEL}-instructblip`;
/** Every linear layer of the text model: its random weights leave little to LoRA on q and v alone. */
const WIDE = ['q', 'k', 'v', 'o', 'wi_0', 'wi_1', 'wo', 'lm_head'];
const backends = await availableBackends();
const backend = backends.includes('native') ? 'native' : 'cpu';

let root: string;
beforeAll(async () => void (await useBackend(backend)));
beforeEach(async () => void (root = await tinyJob()));
const config = (given: Record<string, unknown>) => tinyConfig(root, { model: MODEL, backend, ...given });

/** Two questions about each picture in place of its caption, with other answers. */
async function asQuestions(): Promise<void> {
  for (const split of ['train', 'validation', 'test']) {
    const file = join(root, split, 'metadata.jsonl');
    const rows = await jsonLines<{ file_name: string; text: string }>(file);
    const lines = rows.flatMap(({ file_name, text }) => [
      JSON.stringify({ file_name, question: 'what is it?', answer: text }),
      JSON.stringify({ file_name, question: 'is it red?', answer: 'two' }),
    ]);
    await writeFile(file, `${lines.join('\n')}\n`);
  }
}

/** Messages, training losses and losses of the validation rows. */
async function run(given: Record<string, unknown>) {
  const [messages, losses, evaluated]: [string[], number[], number[]] = [[], [], []];
  const result = await fit(config({ controls: false, ...given }), {
    onMessage: (text) => void messages.push(text),
    onMetrics: ({ loss, eval_loss }) => {
      if (typeof loss === 'number') losses.push(loss);
      if (typeof eval_loss === 'number') evaluated.push(eval_loss);
    },
  });
  return { messages, losses, evaluated, ...result };
}

describe('fit with InstructBLIP', () => {
  it('learns the captions of a handful of images, and leaves no tensors', async () => {
    const before = memory().numTensors;
    const { table, messages } = await run({
      ...{
        max_steps: 400,
        eval_steps: 400,
        save_steps: 400,
        learning_rate: 0.01,
        controls: true,
        prompt: 'a',
      },
      lora: { lora_dropout: 0, target_modules: WIDE },
    });
    expect(messages).toContainEqual(expect.stringMatching(/^feature cache: image_features of 16 images/));
    const exact = Object.fromEntries(table!.rows.map((row) => [row.name, row.exact]));
    expect(exact).toMatchObject({ 'base, before training': 0, 'shuffled images': 0 });
    expect(exact['fine-tuned']).toBeGreaterThanOrEqual(0.75);
    expect(memory().numTensors).toBe(before);
  });

  it('takes nothing that depends on the question from a cache of pictures', async () => {
    await asQuestions();
    const job = { task: 'vqa', max_steps: 12, eval_steps: 6, learning_rate: 0.01, logging_steps: 1 };
    const cached = await run({ ...job, output_dir: join(root, 'cached') });
    const plain = await run({ ...job, output_dir: join(root, 'plain'), cache_features: false });
    expect(cached.messages).toContainEqual(
      expect.stringMatching(/^feature cache: image_features of 16 images/),
    );
    expect(cached.losses).toHaveLength(12);
    for (const [kind, values] of Object.entries({ losses: cached.losses, evaluated: cached.evaluated }))
      values.forEach((value, i) => expect(value).toBeCloseTo(plain[kind as 'losses'][i], 4));
    const texts = await Promise.all(
      ['cached', 'plain'].map((dir) => jsonLines(join(root, dir, 'samples.jsonl'))),
    );
    expect(texts[0]).toEqual(texts[1]);
  });

  it('trains the Q-Former with its words through the frozen text model, with the instruction of the paper', async () => {
    const { losses } = await run({ preset: 'qformer', max_steps: 60, logging_steps: 20 });
    expect(losses.at(-1)).toBeLessThan(losses[0] - 0.3);
    const saved = fromYaml(await readFile(join(root, 'run/config.yaml'), 'utf8')) as { prompt: string };
    expect(saved.prompt).toBe('A short image description.');
    const [base, tuned] = await Promise.all([loadFolder(MODEL), loadFolder(join(root, 'run/model'))]);
    const changed = (name: string) =>
      [base, tuned]
        .map(({ params }) => flatten(params).get(name)!.dataSync().join())
        .every((v, _, [a]) => v === a);
    expect(changed('qformer.embeddings.word_embeddings.weight')).toBe(false);
    expect(changed('qformer.encoder.layer.0.intermediate.dense.weight')).toBe(false);
    expect(changed('language_model.shared.weight')).toBe(true);
    const processor = await loadProcessor(join(root, 'run/model'), textIds(tuned.config));
    expect(processor.qformer).toBeDefined();
  });

  it('answers questions with the template of the paper, in the question of each row', async () => {
    await asQuestions();
    await run({ task: 'vqa', max_steps: 4 });
    const base = await loadFolder(MODEL);
    const adapter = await loadAdapter(join(root, 'run/adapter'));
    const model = { ...base, params: applyAdapter(base.params, adapter, adapterBase(base.config)) };
    const processor = await loadProcessor(MODEL, textIds(base.config));
    const { examples } = await openDataset(root, { split: 'test' });
    const o = { task: 'vqa', num_beams: 2, max_new_tokens: 8 } as const;
    const answers = (batch_size: number, prompt?: string) =>
      generateCaptions(model, processor, examples, { ...o, batch_size, prompt });
    const usual = await answers(3);
    expect(usual).toHaveLength(8);
    expect(await answers(1)).toEqual(usual);
    expect(await answers(8, 'Question: {} Short answer:')).toEqual(usual);
  });

  it('resumes to the same adapter, bit by bit', async () => {
    const own = config({ learning_rate: 2e-3, eval_steps: 3, max_steps: 6, controls: false });
    const adapter = async () => (await loadAdapter(join(root, 'run/adapter'))).lora;
    await fit(own);
    const whole = await adapter();
    const again = { ...own, output_dir: join(root, 'again') };
    const abort = new AbortController();
    await fit(again, { signal: abort.signal, onProgress: ({ step }) => void (step === 3 && abort.abort()) });
    await fit(again, { resume: true });
    expect((await loadAdapter(join(root, 'again/adapter'))).lora).toEqual(whole);
  });

  it('has the same instructions in batches whose texts were tokenised before, and in others', async () => {
    await asQuestions();
    const processor = await loadProcessor(MODEL, textIds(await loadConfig(MODEL)));
    const data = await openDataset(root, { split: 'train' });
    const texts = { task: 'vqa', prompt: 'Question: {} Short answer:' } as const;
    const read = async (made: AsyncGenerator<{ instructions?: object }>) => {
      const found: unknown[] = [];
      for await (const { instructions } of made) found.push(instructions);
      return found;
    };
    const order = { batch_size: 3, withPixels: false };
    const ready = await read(batches(readyDataset(data, processor, texts), processor, order));
    expect(ready).toEqual(await read(batches(data, processor, { ...order, ...texts })));
    expect(ready[0]).toMatchObject({ shape: [3, expect.any(Number)] });
  });
});

describe('the plan of InstructBLIP', () => {
  it('times rows with an instruction, a step and texts', async () => {
    const own = await loadConfig(MODEL);
    const rows = tokenRows(own, 2, 6);
    expect(rows.instructions).toMatchObject({ shape: [2, 9] });
    const known = {
      model: { config: own, dtype: 'F32' as const, bytes: 0 },
      data: { tokens: { mean: 6, most: 6 }, pictures_per_row: 1, final: 2, validation: 2 },
      machine: { precision: 'float32' },
      meter: { seconds: 0, fastest: 0 },
      units: new Map(),
    } as unknown as Parameters<typeof stepCost>[0];
    const { compute } = await stepCost(known, config({}));
    const generation = await generationCost(known, config({}));
    expect(compute).toBeGreaterThan(0);
    expect(generation!.prompt + generation!.token).toBeGreaterThan(0); // one of them may be 0: they are differences of times
  });
});
