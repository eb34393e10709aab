/** A whole job with a T5 text model: rows of the encoder and of the decoder, the plan, training, generation, files. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { adapterBase, textIds } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { loadProcessor, openDataset } from '@blip2/data-captions';
import { flatten, memory } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { jsonLines, TINY_MODEL, tinyConfig, tinyJob } from '../spec/tiny';
import { fromYaml } from './config';
import { generateCaptions } from './evaluation';
import { fit } from './fit';
import { tokenRows } from './plan/small-model';

const T5_MODEL = `${TINY_MODEL}-t5`;
/** Every linear layer of the text model: its random weights leave little to LoRA on q and v alone. */
const WIDE = ['q', 'k', 'v', 'o', 'wi_0', 'wi_1', 'wo', 'lm_head'];
const LEARNS = {
  ...{ max_steps: 400, eval_steps: 400, save_steps: 400, learning_rate: 0.01 },
  lora: { lora_dropout: 0, target_modules: WIDE },
};
// The fastest backend is enough; t5-language-model's suite compares the backends.
const backends = await availableBackends();
const backend = backends.includes('native') ? 'native' : 'cpu';

let root: string;
beforeAll(async () => void (await useBackend(backend)));
beforeEach(async () => void (root = await tinyJob()));
const t5Config = (given: Record<string, unknown>) => tinyConfig(root, { model: T5_MODEL, backend, ...given });

/** Replaces captions by questions and answers in every split. */
async function asQuestions(): Promise<void> {
  for (const split of ['train', 'validation', 'test']) {
    const file = join(root, split, 'metadata.jsonl');
    const rows = await jsonLines<{ file_name: string; text: string }>(file);
    const lines = rows.map(({ file_name, text }) =>
      JSON.stringify({ file_name, question: 'what is it?', answer: text }),
    );
    await writeFile(file, `${lines.join('\n')}\n`);
  }
}

describe('fit with T5', () => {
  it('learns the captions of a handful of images, from cached features, and leaves no tensors', async () => {
    const before = memory().numTensors;
    const messages: string[] = [];
    const { table } = await fit(t5Config({ ...LEARNS, controls: true }), {
      onMessage: (text) => void messages.push(text),
    });
    expect(messages).toContainEqual(expect.stringMatching(/^feature cache: query_embeds of 16 images/));
    const exact = Object.fromEntries(table!.rows.map((row) => [row.name, row.exact]));
    expect(exact).toMatchObject({ 'fine-tuned': 1, 'base, before training': 0, 'shuffled images': 0 });
    expect(memory().numTensors).toBe(before);
  });

  it('trains the Q-Former through the frozen text model, from features of the vision tower', async () => {
    const messages: string[] = [];
    const losses: number[] = [];
    const config = t5Config({
      preset: 'qformer-projection',
      max_steps: 60,
      logging_steps: 20,
      controls: false,
    });
    await fit(config, {
      onMessage: (text) => void messages.push(text),
      onMetrics: ({ loss }) => void (loss !== undefined && losses.push(loss as number)),
    });
    expect(messages).toContainEqual(expect.stringMatching(/^feature cache: image_features of 16 images/));
    expect(losses.at(-1)).toBeLessThan(losses[0] - 0.3);
    const [base, tuned] = [await loadFolder(T5_MODEL), await loadFolder(join(root, 'run/model'))];
    const text = ({ params }: typeof base) =>
      [...flatten(params.language_model).values()].map((x) => x.dataSync());
    expect(text(tuned)).toEqual(text(base));
  });

  it("asks questions with the paper's template, in training, evaluation and the saved config", async () => {
    await asQuestions();
    await fit(t5Config({ task: 'vqa', max_steps: 4, controls: false }));
    const saved = fromYaml(await readFile(join(root, 'run/config.yaml'), 'utf8')) as { prompt: string };
    expect(saved.prompt).toBe('Question: {} Short answer:');
    const base = await loadFolder(T5_MODEL);
    const adapter = await loadAdapter(join(root, 'run/adapter'));
    const model = { ...base, params: applyAdapter(base.params, adapter, adapterBase(base.config)) };
    const processor = await loadProcessor(T5_MODEL, textIds(base.config));
    const { examples } = await openDataset(root, { split: 'test' });
    const o = { task: 'vqa', batch_size: 3, num_beams: 2, max_new_tokens: 8 } as const;
    const answers = (prompt?: string) => generateCaptions(model, processor, examples, { ...o, prompt });
    const usual = await answers();
    expect(usual).toHaveLength(4);
    expect(await answers('Question: {} Short answer:')).toEqual(usual);
    expect(await answers('Question: {} Answer:')).not.toEqual(usual);
  });

  it('resumes to the same adapter, bit by bit', async () => {
    const config = t5Config({ learning_rate: 2e-3, eval_steps: 3, max_steps: 6, controls: false });
    const adapter = async () => (await loadAdapter(join(root, 'run/adapter'))).lora;
    await fit(config);
    const whole = await adapter();
    const again = { ...config, output_dir: join(root, 'again') };
    const abort = new AbortController();
    await fit(again, { signal: abort.signal, onProgress: ({ step }) => void (step === 3 && abort.abort()) });
    await fit(again, { resume: true });
    expect((await loadAdapter(join(root, 'again/adapter'))).lora).toEqual(whole);
  });

  it('trains every tensor with the preset full, and saves a model of the same tensors', async () => {
    await fit(t5Config({ preset: 'full', learning_rate: 1e-3, max_steps: 3, controls: false }));
    const [base, tuned] = [await loadFolder(T5_MODEL), await loadFolder(join(root, 'run/model'))];
    expect([...flatten(tuned.params).keys()]).toEqual([...flatten(base.params).keys()]);
    const name = 'language_model.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight';
    const [was, is] = [base, tuned].map(({ params }) => flatten(params).get(name)!.dataSync());
    expect(is).not.toEqual(was);
  });

  it('times rows with the text in the target', async () => {
    const { config } = await loadFolder(T5_MODEL);
    const rows = tokenRows(config, 2, 6);
    expect(rows.shape).toEqual([2, config.num_query_tokens + 1]);
    expect(rows.labels).toHaveLength(12);
  });
});
