import { existsSync } from 'node:fs';
import { appendFile, cp, mkdir, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { loadAdapter } from '@blip2/peft-lora/node';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { checkpointDir, listCheckpoints } from './checkpoint';
import type { FitHooks } from '../hooks';
import { fit } from '../fit';
import { courseOf, TINY_MODEL, tinyConfig, tinyJob } from '../../spec/tiny';

let root: string;
beforeAll(async () => void (await useBackend('cpu')));
beforeEach(async () => void (root = await tinyJob()));

const short = (given: Record<string, unknown> = {}) =>
  tinyConfig(root, { max_steps: 4, save_steps: 1, final_evaluation: 'none', ...given });

/** Stops a run after an update. */
async function stopAfter(config: ReturnType<typeof tinyConfig>, stop: number): Promise<void> {
  const abort = new AbortController();
  const onProgress = ({ step }: { step: number }) => void (step === stop && abort.abort());
  await fit(config, { signal: abort.signal, onProgress });
}

/** Resumes, and says which phases and messages came before it ended in an error. */
async function refusal(config: ReturnType<typeof tinyConfig>) {
  const seen: string[] = [];
  const hooks: FitHooks = {
    resume: true,
    onMessage: (text) => void seen.push(text),
    onPhase: ({ name }) => void seen.push(name),
  };
  const before = memory();
  const error = await fit(config, hooks).then(
    () => undefined,
    (reason: Error) => reason,
  );
  expect(memory()).toEqual(before);
  return { message: error?.message ?? 'no error', seen };
}

describe('resuming', () => {
  it('refuses before anything is loaded or computed', async () => {
    await stopAfter(short({ controls: true }), 2);
    const { message, seen } = await refusal(short({ controls: true, learning_rate: 1 }));
    expect(message).toMatch(
      /cannot resume, because the run has changed:\n {2}learning_rate: was 0\.02, is 1\n/,
    );
    expect(seen.join()).not.toMatch(/loading model|caching|captioning|feature cache/);
  });

  it('is refused while the run is still going, which loses nothing', async () => {
    const config = short({ logging_steps: 1 });
    const refusals: Promise<unknown>[] = [];
    const onProgress = ({ step }: { step: number }) =>
      void (step === 2 && refusals.push(fit(config, { resume: true }).catch(String)));
    await fit(config, { onProgress });
    expect(await refusals[0]).toContain(`.lock: this process (${process.pid}) is already writing here`);
    const course = await courseOf(config.output_dir);
    expect(course.map(({ step }) => step)).toEqual([1, 2, 3, 3, 4, 4]);
    expect(existsSync(join(config.output_dir, '.lock'))).toBe(false);
  });

  it('refuses by name a training image and a weight that have other contents', async () => {
    const model = join(root, 'model');
    await cp(TINY_MODEL, model, { recursive: true });
    const config = short({ model });
    await stopAfter(config, 2);
    const [image, other] = ['0-1.png', '1-2.png'].map((name) => join(root, 'train', name));
    const bytes = await readFile(image);
    await cp(other, image);
    const weights = join(model, 'model.safetensors');
    const handle = await open(weights, 'r+');
    await handle.write(Buffer.from([0x5a]), 0, 1, (await handle.stat()).size >> 1);
    await handle.close();
    expect((await refusal(config)).message).toMatch(
      /model: not the files the run began with: model\.safetensors\n {2}data: images are not those the run began with: \S+0-1\.png\n/,
    );
    await cp(join(TINY_MODEL, 'model.safetensors'), weights);
    await writeFile(image, bytes);
    expect((await refusal(config)).message).toBe('no error');
  });

  it('compares no images when they are not cached, and says so', async () => {
    const config = short({ cache_features: false });
    await stopAfter(config, 2);
    const { message, seen } = await refusal(config);
    expect(message).toBe('no error');
    expect(seen.join()).toContain('the contents of the images are not compared');
  });

  it('refuses when every checkpoint is damaged, names each, and leaves the metrics alone', async () => {
    const config = short();
    await stopAfter(config, 3);
    const steps = await listCheckpoints(config.output_dir);
    expect(steps).toEqual([3, 2, 1]);
    const [last, ...others] = steps.map((step) => checkpointDir(config.output_dir, step));
    await truncate(join(last, 'trainables.safetensors'), 50);
    for (const dir of others) await rm(join(dir, 'state.json'));
    const metrics = await readFile(join(config.output_dir, 'metrics.jsonl'), 'utf8');
    const { message } = await refusal(config);
    expect(message).toMatch(/cannot resume, because every checkpoint is damaged:\n/);
    expect(message).toContain('step-000003: trainables.safetensors is not as it was written');
    expect(message).toContain('step-000002: state.json is missing');
    expect(message).toContain('step-000001: state.json is missing');
    expect(message).toMatch(/leave out --resume and start a new run/);
    expect(await readFile(join(config.output_dir, 'metrics.jsonl'), 'utf8')).toBe(metrics);
  });

  it('refuses another tokenizer', async () => {
    const model = join(root, 'model');
    await cp(TINY_MODEL, model, { recursive: true });
    await stopAfter(short({ model }), 1);
    await appendFile(join(model, 'tokenizer.json'), ' ');
    expect((await refusal(short({ model }))).message).toMatch(
      /model: not the files the run began with: tokenizer\.json\n/,
    );
  });

  it('begins anew when the run was killed before its first checkpoint, and clears away what it left', async () => {
    const config = short();
    const leftover = join(config.output_dir, 'checkpoints', 'step-000001.tmp');
    await mkdir(leftover, { recursive: true });
    const messages: string[] = [];
    const onMessage = (text: string) => void messages.push(text);
    const result = await fit(config, { resume: true, onMessage });
    expect(result.steps).toBe(4);
    expect(messages).toContain('no checkpoint to resume from; starting at the beginning');
    expect(existsSync(leftover)).toBe(false);
  });

  it('saves the last weights when those of the best evaluation cannot be read', async () => {
    const config = short({ eval_steps: 1, greater_is_better: true }); // of the loss: the first evaluation
    const whole = await fit(config);
    expect(whole.best!.step).toBeLessThan(4);
    await rm(join(config.output_dir, 'adapter'), { recursive: true });
    const best = checkpointDir(config.output_dir, whole.best!.step);
    await truncate(join(best, 'trainables.safetensors'), 50);
    const { message } = await refusal(config);
    expect(message).toContain(`${best}: the weights of the best evaluation cannot be read`);
    expect(message).toContain('The weights after the last step (4) were saved in');
    expect((await loadAdapter(join(config.output_dir, 'adapter'))).lora.size).toBeGreaterThan(0);
  });
});

describe('the adapter of a run', () => {
  it('names a base in a folder so that nobody takes it for a name on the hub', async () => {
    const cwd = process.cwd();
    process.chdir(root);
    try {
      await mkdir('models');
      await cp(TINY_MODEL, 'models/base', { recursive: true });
      const bases: (string | null)[] = [];
      for (const name of ['local', 'hub']) {
        if (name === 'hub') await mkdir('models/base/.cache/huggingface', { recursive: true });
        await fit(short({ model: 'models/base', output_dir: name, max_steps: 1 }));
        bases.push((await loadAdapter(join(name, 'adapter'))).config.base_model_name_or_path);
        const card = await readFile(join(name, 'adapter', 'README.md'), 'utf8');
        expect(card.includes('base_model: models/base')).toBe(name === 'hub');
      }
      expect(bases).toEqual(['./models/base', 'models/base']);
    } finally {
      process.chdir(cwd);
    }
  });
});

describe('a longer run', () => {
  const run = (name: string, given: Record<string, unknown>) => {
    const lengths = { num_train_epochs: 2, final_evaluation: 'none', output_dir: join(root, name) };
    return tinyConfig(root, { ...lengths, lora: { lora_dropout: 0.3 }, ...given });
  };
  const weights = async (dir: string) => readFile(join(dir, 'adapter', 'adapter_model.safetensors'));

  it('continues a finished one, bit by bit as one run where the rate is constant', async () => {
    const constant = { lr_scheduler_type: 'constant', load_best_model_at_end: false };
    const [parts, whole] = [run('parts', constant), run('whole', { ...constant, num_train_epochs: 4 })];
    await fit(parts);
    const said: string[] = [];
    const longer = { ...parts, num_train_epochs: 4 };
    const { steps } = await fit(longer, { resume: true, onMessage: (text) => void said.push(text) });
    await fit(whole);
    expect(steps).toBe((await listCheckpoints(whole.output_dir))[0]);
    expect(await weights(parts.output_dir)).toEqual(await weights(whole.output_dir));
    expect(await courseOf(parts.output_dir)).toEqual(await courseOf(whole.output_dir));
    expect(said.join('\n')).toContain('(num_train_epochs: was 2, is 4): the learning rate is constant');
    expect(await readFile(join(parts.output_dir, 'config.yaml'), 'utf8')).toContain('num_train_epochs: 4');
  });

  it('has the rates of the new length from there on', async () => {
    const config = run('cosine', { logging_steps: 1, save_total_limit: 1 });
    await fit(config);
    const said: string[] = [];
    await fit(
      { ...config, num_train_epochs: 3 },
      { resume: true, onMessage: (text) => void said.push(text) },
    );
    const whole = run('whole-cosine', { num_train_epochs: 3, logging_steps: 1 });
    await fit(whole);
    const rates = async (dir: string) =>
      (await courseOf(dir)).flatMap(({ learning_rate }) => learning_rate ?? []);
    const [own, one] = [await rates(config.output_dir), await rates(whole.output_dir)];
    expect(own).toHaveLength(9);
    expect(own.slice(6)).toEqual(one.slice(6));
    expect(own.slice(0, 6)).not.toEqual(one.slice(0, 6));
    expect(said.join('\n')).toContain(
      'from step 6 on the learning rate is that of a run of the new length (cosine)',
    );
  });

  it('is not a shorter or another one', async () => {
    const config = run('refused', {});
    await fit(config);
    await expect(fit({ ...config, num_train_epochs: 1 }, { resume: true })).rejects.toThrow(
      'num_train_epochs: was 2, is 1',
    );
    await expect(fit({ ...config, num_train_epochs: 3, seed: 1 }, { resume: true })).rejects.toThrow(
      /num_train_epochs: was 2, is 3\n {2}seed|seed: was 0, is 1\n {2}num_train_epochs/,
    );
  });
});
