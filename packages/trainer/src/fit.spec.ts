import { existsSync } from 'node:fs';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadFolder } from '@blip2/blip2/node';
import { dispose, flatten, memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { FitConfig } from './config';
import { listCheckpoints } from './run/checkpoint';
import { fromYaml } from './config';
import type { FitHooks } from './hooks';
import { fit } from './fit';
import { courseOf, jsonLines, TINY_MODEL, tinyConfig, tinyJob } from '../spec/tiny';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));

async function adapterOf(dir: string) {
  const { lora, tensors } = await loadAdapter(join(dir, 'adapter'));
  return { lora, tensors };
}

/** Runs a config, stopping after the given steps and resuming each time. */
async function inLegs(config: FitConfig, stops: number[], messages: string[] = []) {
  for (const [leg, stop] of [...stops, Infinity].entries()) {
    const abort = new AbortController();
    const result = await fit(config, {
      resume: leg > 0,
      signal: abort.signal,
      onMessage: (text) => void messages.push(text),
      onProgress: ({ step }) => void (step === stop && abort.abort()),
    });
    expect(result.interrupted).toBe(stop !== Infinity);
    if (stop !== Infinity)
      expect(result).toMatchObject({ steps: stop, resume: expect.stringContaining('--resume') });
  }
}

describe('fit', () => {
  it('learns the captions of a handful of images, with a cache that says so', async () => {
    const messages: string[] = [];
    const rows: Record<string, unknown>[] = [];
    const before = memory().numTensors;
    const lengths = { max_steps: 200, eval_steps: 50, save_steps: 200 };
    const config = tinyConfig(root, { ...lengths, lora: { lora_dropout: 0 }, controls: true });
    const hooks: FitHooks = {
      onMessage: (text) => void messages.push(text),
      onMetrics: (row) => void rows.push(row),
    };
    const result = await fit(config, hooks);
    const losses = rows.flatMap(({ loss }) => (loss === undefined ? [] : [loss as number]));
    expect(losses[0]).toBeGreaterThan(3);
    expect(losses.at(-1)).toBeLessThan(0.5);
    expect(result.trainable).toMatch(/^trainable params: 6,144 \|\| all params: /);
    expect(messages).toContainEqual(
      expect.stringMatching(/^feature cache: query_embeds of 16 images, 0\.0 MiB/),
    );
    expect(result.table).toMatchObject({ n: 4, split: 'test' });
    const exact = Object.fromEntries(result.table!.rows.map((row) => [row.name, row.exact]));
    expect(exact).toMatchObject({ 'fine-tuned': 1, 'base, before training': 0, 'shuffled images': 0 });
    expect((await readdir(join(root, 'run'))).sort()).toEqual([
      'adapter',
      'checkpoints',
      'config.yaml',
      'environment.json',
      'fit.schema.json',
      'images.sha256',
      'metrics.jsonl',
      'report.html',
      'results.json',
      'samples.jsonl',
      'tensorboard',
    ]);
    const [sample] = await jsonLines<object>(join(root, 'run', 'samples.jsonl'));
    expect(Object.keys(sample)).toEqual(['image', 'reference', 'before', 'after', 'score']);
    expect(result.figures!.captions).toMatchObject({ rouge_l: 1, n: 4 });
    expect(result.figures!.before!.captions!.rouge_l).toBeLessThan(0.5);
    expect((await courseOf(join(root, 'run'))).at(-1)).toMatchObject({
      ...{ step: 200, test_exact: 1, test_rouge_l: 1, test_changed_when_shuffled: 1 },
    });
    expect(memory().numTensors).toBe(before);
  });

  it('moves only what trains: the saved model of a Q-Former run has every other tensor as it was', async () => {
    const config = tinyConfig(root, { preset: 'qformer-projection', num_train_epochs: 1, controls: false });
    const before = memory();
    await fit({ ...config, learning_rate: 1e-3 });
    expect(memory()).toEqual(before);
    const [base, tuned] = [await loadFolder(TINY_MODEL), await loadFolder(join(root, 'run', 'model'))];
    const after = flatten(tuned.params);
    const moved: string[] = [];
    for (const [name, x] of flatten(base.params)) {
      const [was, is] = [await x.data(), await after.get(name)!.data()];
      if (was.some((value, i) => value !== is[i])) moved.push(name);
    }
    expect(moved.length).toBeGreaterThan(40);
    expect(moved.filter((name) => !/qformer|^query_tokens$|^language_projection\./.test(name))).toEqual([]);
  });

  it.each(['lora', 'lora+qformer'] as const)(
    'resumes to the same adapter and the same metrics, bit by bit (%s)',
    async (preset) => {
      const config = tinyConfig(root, {
        preset,
        gradient_accumulation_steps: 2,
        learning_rate: 2e-3,
        eval_steps: 3,
      });
      await inLegs(config, []);
      const whole = {
        adapter: await adapterOf(config.output_dir),
        course: await courseOf(config.output_dir),
      };
      expect(whole.course.map((row) => row.step)).toEqual([2, 3, 4, 6, 6, 8, 8, 8]);
      await rm(config.output_dir, { recursive: true });
      await inLegs(config, [1, 3, 6]);
      expect(await courseOf(config.output_dir)).toEqual(whole.course);
      expect((await adapterOf(config.output_dir)).lora).toEqual(whole.adapter.lora);
      expect((await adapterOf(config.output_dir)).tensors).toEqual(whole.adapter.tensors);
    },
  );

  it('recomputes activations in the backward pass to the same training', async () => {
    const config = tinyConfig(root, { final_evaluation: 'none', num_train_epochs: 2 });
    await fit(config);
    await fit({ ...config, gradient_checkpointing: true, output_dir: join(root, 'again') });
    const [stored, again] = [await courseOf(config.output_dir), await courseOf(join(root, 'again'))];
    expect(again.length).toBe(stored.length);
    again.forEach((row, i) => {
      if (row.loss) expect(row.loss).toBeCloseTo(stored[i].loss, 5);
    });
  });

  it('refuses to resume another run and to overwrite one', async () => {
    const config = tinyConfig(root, { max_steps: 2, final_evaluation: 'none' });
    await expect(fit(config, { resume: true })).rejects.toThrow('there is no run to resume');
    await fit(config);
    await expect(fit(config)).rejects.toThrow('a run is already there');
    const changed = { ...config, learning_rate: 1, max_steps: 9 };
    await expect(fit(changed, { resume: true })).rejects.toThrow(
      /cannot resume.*\n {2}learning_rate: was 0\.02, is 1\n {2}max_steps: was 2, is 9/,
    );
    const kept = await readFile(join(config.output_dir, 'config.yaml'), 'utf8');
    expect(fromYaml(kept)).toEqual({ ...config, precision: 'float32' }); // what auto meant there
    expect((await fit(config, { ifExists: 'number' })).output_dir).toBe(`${config.output_dir}-2`);
  });

  it('leaves nothing behind when an input is wrong', async () => {
    await expect(fit(tinyConfig(root, { model: join(root, 'none') }))).rejects.toThrow(/none/);
    await expect(fit(tinyConfig(root, { lora: { target_modules: ['no_such'] } }))).rejects.toThrow(/no_such/);
    await expect(fit(tinyConfig(root, { data: join(root, 'nothing') }))).rejects.toThrow(/nothing/);
    expect(existsSync(join(root, 'run'))).toBe(false);
  });

  it('refuses before training what would only fail in an epoch, an evaluation or the final table', async () => {
    const file = join(root, 'other.jsonl');
    const rowsOf = (rows: object[]) => rows.map((row) => JSON.stringify({ image: 'train/0-0.png', ...row }));
    const refused = (given: Record<string, unknown>, why: RegExp) =>
      expect(fit(tinyConfig(root, given))).rejects.toThrow(why);
    await refused(
      { task: 'vqa' },
      /8 of 8 rows cannot be used.*\n.*expected a question and an answer, found none/,
    );
    await refused({ parts_pattern: '(?<x>zzz)' }, /matches none of 8; the first is "a dog"/);
    await refused({ generation: { max_new_tokens: 99 } }, /max_new_tokens.*\n.*at most 60, found 99/);
    await writeFile(file, rowsOf([{ question: 'what?', answer: 'a dog' }]).join('\n'));
    await refused({ eval_data: file }, /1 of 1 rows cannot be used.*\n.*expected a caption, found none/);
    const captions = [...Array<string>(20).fill('a dog'), 'dog '.repeat(300)];
    await writeFile(file, rowsOf(captions.map((caption) => ({ caption }))).join('\n'));
    await refused({ data: file }, /other\.jsonl:21: expected at most 60 tokens/);
    expect(existsSync(join(root, 'run'))).toBe(false);
  });

  it('generates texts up to the last position, if no length is given, and reports that length', async () => {
    const messages: string[] = [];
    const config = tinyConfig(root, { prompt: 'a'.repeat(45), generation: {}, max_steps: 1 });
    const { table } = await fit(config, { onMessage: (text) => void messages.push(text) });
    expect(table).toBeDefined();
    expect(messages).toContain(
      'generation: texts of at most 14 tokens: the model has 64 positions, image and longest prompt take 50',
    );
  });

  it('ends with the weights of the best evaluation', async () => {
    const config = tinyConfig(root, {
      max_steps: 6,
      eval_steps: 2,
      save_steps: 2,
      save_total_limit: 1,
      learning_rate: 0.3,
    });
    const result = await fit(config);
    const evals = (await courseOf(config.output_dir)).filter((row) => row.eval_loss !== undefined);
    const lowest = evals.reduce((a, b) => (b.eval_loss < a.eval_loss ? b : a));
    expect(result.best).toEqual({ step: lowest.step, score: lowest.eval_loss });
    expect((await listCheckpoints(config.output_dir)).sort()).toEqual([...new Set([lowest.step, 6])].sort());
  });

  it('stops on a loss that is not finite, names the tensor, and keeps the weights before it', async () => {
    const run = fit(
      tinyConfig(root, { learning_rate: 1e30, max_grad_norm: 0, warmup_ratio: 0, final_evaluation: 'none' }),
    );
    await expect(run).rejects.toThrow(
      /step \d: the loss is .* first tensor that is not finite is language_model\./,
    );
    await expect(run).rejects.toThrow(/The weights before it are in .*step-\d+/);
  });

  it('writes an adapter that the loader puts back on the base', async () => {
    const config = tinyConfig(root, { preset: 'lora+qformer', max_steps: 2, final_evaluation: 'none' });
    await fit(config);
    const base = await loadFolder(TINY_MODEL);
    const tree = applyAdapter(base.params, await loadAdapter(join(config.output_dir, 'adapter')));
    expect([...flatten(tree).keys()].some((name) => name.includes('.lora.lora_A'))).toBe(true);
  });

  it.each(['full', 'qformer'] as const)(
    'trains questions and answers, preset %s, and saves a whole model',
    async (preset) => {
      const file = join(root, 'questions.jsonl');
      const row = (copy: number, i: number) => ({
        image: `train/${copy}-${i}.png`,
        question: 'what?',
        answer: ['red', 'to'][i % 2],
      });
      const rows = [0, 1, 2, 3].map((i) => JSON.stringify(row(i % 2, i)));
      await writeFile(file, rows.join('\n'));
      const data = { data: file, eval_data: file, task: 'vqa', prompt: 'Q: {} A:' };
      const config = tinyConfig(root, {
        ...data,
        preset,
        max_steps: 2,
        learning_rate: 1e-3,
        final_evaluation: 'validation',
      });
      const result = await fit(config);
      expect(result.saved).toBe(join(root, 'run', 'model'));
      expect(result.table).toMatchObject({ n: 4, split: 'validation' });
      const [sample] = await jsonLines<object>(join(root, 'run', 'samples.jsonl'));
      expect(sample).toMatchObject({ question: 'what?', reference: 'red' });
      const page = await readFile(result.report!, 'utf8');
      for (const text of ['Answers by type of question', 'what?', 'blank image', 'shuffled images'])
        expect(page).toContain(text);
    },
  );

  it.each(['captioning before training', 'captioning test'])('can be stopped while %s', async (phase) => {
    const abort = new AbortController();
    const config = tinyConfig(root, { max_steps: 2, controls: true, per_device_eval_batch_size: 1 });
    const seen: number[] = [];
    const result = await fit(config, {
      signal: abort.signal,
      onPhase: ({ name, done }) => {
        if (name !== phase) return;
        seen.push(done);
        setImmediate(() => abort.abort());
      },
    });
    expect(seen).toEqual([1]);
    expect(result.interrupted).toBe(true);
    expect(existsSync(join(root, 'run', 'adapter'))).toBe(phase === 'captioning test');
    if (phase === 'captioning test')
      expect((await fit(config, { resume: true })).table).toMatchObject({ n: 4, split: 'test' });
  });

  it('works without anything to evaluate on', async () => {
    const file = join(root, 'captions.jsonl');
    await writeFile(file, JSON.stringify({ image: 'train/0-0.png', caption: 'a dog' }));
    const result = await fit(tinyConfig(root, { data: file, max_steps: 2 }));
    expect(result).toMatchObject({ table: undefined, best: undefined, steps: 2 });
    expect(existsSync(result.report!)).toBe(true);
  });

  it('in int8, saves the exact weights of what did not train, and keeps the rounded ones beside the features', async () => {
    const config = tinyConfig(root, {
      ...{ max_steps: 3, backend: 'native', precision: 'int8', preset: 'qformer', controls: false },
    });
    const messages: string[] = [];
    const hooks = { onMessage: (text: string) => void messages.push(text) };
    const { saved } = await fit(config, hooks);
    expect(messages.join('\n')).toMatch(/precision int8[^]*int8 weights: \d+ MiB made in/);
    const [trained, base] = [await loadFolder(saved!), await loadFolder(TINY_MODEL)];
    const [after, before] = [flatten(trained.params), flatten(base.params)];
    for (const [name, leaf] of before) {
      const same = Buffer.from(await leaf.data()).equals(Buffer.from(await after.get(name)!.data()));
      if (!name.startsWith('qformer.')) expect(same, name).toBe(true);
    }
    dispose([trained.params, base.params]);
    const again = messages.length;
    await fit({ ...config, output_dir: join(root, 'again') }, hooks);
    expect(messages.slice(again).join('\n')).not.toContain('int8 weights');
    expect(
      (await readdir(config.cache_dir!)).filter((name) => /^int8-.*\.safetensors$/.test(name)),
    ).toHaveLength(1);
    await useBackend('cpu');
  });
});
