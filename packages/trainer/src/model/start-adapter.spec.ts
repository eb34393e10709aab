/** A run that starts from the adapter of another one. */
import { appendFile, cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { loadAdapter } from '@blip2/peft-lora/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { chooseConfig } from '../choose';
import type { FitConfig } from '../config';
import { fit } from '../fit';
import { trainedPictures } from '../run/finished';
import { courseOf, TINY_MODEL, tinyConfig, tinyJob } from '../../spec/tiny';

const LORA = { r: 4, lora_alpha: 12, lora_dropout: 0.1, target_modules: ['q_proj', 'fc1'], use_rslora: true };
const SHORT = { max_steps: 6, final_evaluation: 'none' };

let root: string;
const first = (preset: string) => join(root, `first-${preset}`);
beforeAll(async () => {
  await useBackend('cpu');
  root = await tinyJob();
  for (const preset of ['lora', 'lora+qformer'])
    await fit(tinyConfig(root, { ...SHORT, preset, lora: LORA, output_dir: first(preset) }));
});
afterAll(() => rm(root, { recursive: true }));

/** The settings that `fit --adapter` has, without those that are chosen from the data. */
async function second(
  name: string,
  adapter: string,
  given: Record<string, unknown> = {},
): Promise<FitConfig> {
  const { model, data, cache_dir, backend } = tinyConfig(root);
  const raw = {
    model,
    data,
    cache_dir,
    backend,
    adapter,
    task: 'caption',
    output_dir: join(root, name),
    ...SHORT,
  };
  const { config } = await chooseConfig(
    { ...raw, per_device_train_batch_size: 3, load_best_model_at_end: false, ...given },
    { only: 'task' },
  );
  return config;
}

const losses = async (dir: string) => (await courseOf(dir)).flatMap(({ eval_loss }) => eval_loss ?? []);

describe.each(['lora', 'lora+qformer'])('continuing an adapter of the preset %s', (preset) => {
  it('starts at its loss, with its settings, and writes an adapter that is further on', async () => {
    const adapter = join(first(preset), 'adapter');
    const still = await second(`still-${preset}`, adapter, { learning_rate: 1e-30, max_steps: 1 });
    expect(still.preset).toBe(preset);
    expect(still.lora).toMatchObject(LORA);
    await fit(still);
    // the best weights are the result of the first run
    expect(await losses(still.output_dir)).toEqual([Math.min(...(await losses(first(preset))))]);

    const before = memory().numTensors;
    const further = await second(`further-${preset}`, adapter, { learning_rate: 0.02 });
    await fit(further);
    expect(memory().numTensors).toBe(before);
    const [was, is] = [await loadAdapter(adapter), await loadAdapter(join(further.output_dir, 'adapter'))];
    expect({ ...is.config, base_model_name_or_path: null }).toEqual({
      ...was.config,
      base_model_name_or_path: null,
    });
    expect([...is.lora.keys(), ...is.tensors.keys()]).toEqual([...was.lora.keys(), ...was.tensors.keys()]);
    expect(is.lora.values().next().value!.B.data).not.toEqual(was.lora.values().next().value!.B.data);
    expect((await losses(further.output_dir)).at(-1)).toBeLessThan((await losses(still.output_dir))[0]);
  });
});

describe('a run that continues an adapter', () => {
  const adapter = () => join(first('lora'), 'adapter');

  it('refuses LoRA settings that contradict it, with the difference', async () => {
    await expect(
      second('x', adapter(), { lora: { r: 8, lora_alpha: 12, bias: 'all', use_dora: true } }),
    ).rejects.toThrow(
      /lora\.r: the adapter has 4, found 8; .*lora\.use_dora: the adapter has false, found true; .*lora\.bias: the adapter has "none", found "all"/s,
    );
    await expect(second('x', adapter(), { preset: 'qformer' })).rejects.toThrow(
      'adapter: the preset qformer has no LoRA',
    );
    const other = tinyConfig(root, { ...SHORT, adapter: adapter(), output_dir: join(root, 'x') });
    await expect(fit(other)).rejects.toThrow(
      /lora\.r: the adapter has 4, found 16; .*lora\.target_modules: the adapter has \["q_proj","fc1"\], found nothing/s,
    );
  });

  it('refuses to lose what the adapter trained', async () => {
    const config = await second('x', join(first('lora+qformer'), 'adapter'), { preset: 'lora' });
    await expect(fit(config)).rejects.toThrow(
      /has query_tokens, which this run does not train .*--preset lora\+qformer/s,
    );
  });

  it('refuses another base, a run folder and a whole model', async () => {
    const model = join(root, 'other-model');
    await cp(TINY_MODEL, model, { recursive: true });
    const same = await second('same-base', adapter(), { model });
    await fit(same); // the same files in another place
    await writeFile(join(model, 'config.json'), (await readFile(join(model, 'config.json'), 'utf8')) + '\n');
    const other = await second('x', adapter(), { model });
    await expect(fit(other)).rejects.toThrow(
      /was made for the base model .*config\.json differ; pass --model/,
    );
    await expect(second('x', first('lora'))).rejects.toThrow(`expected its adapter: --adapter ${adapter()}`);
    await mkdir(join(root, 'whole', 'model'), { recursive: true });
    await cp(TINY_MODEL, join(root, 'whole', 'model'), { recursive: true });
    await expect(second('x', join(root, 'whole'))).rejects.toThrow(
      `pass it as --model ${join(root, 'whole', 'model')}`,
    );
  });

  it('is not resumed with another adapter', async () => {
    const copy = join(root, 'copy');
    await cp(adapter(), copy, { recursive: true });
    const config = await second('bound', copy, { save_steps: 2 });
    const abort = new AbortController();
    await fit(config, { signal: abort.signal, onProgress: ({ step }) => void (step === 2 && abort.abort()) });
    await appendFile(join(copy, 'adapter_model.safetensors'), ' ');
    await expect(fit(config, { resume: true })).rejects.toThrow(
      'adapter: not the files the run began with: adapter_model.safetensors',
    );
  });

  it('knows the pictures of the run before it', async () => {
    const config = await second('later', adapter(), { data: join(root, 'test') });
    await fit(config);
    const pictures = ['train', 'test'].map((split) => join(root, split, '0-1.png'));
    expect(await trainedPictures(config.output_dir, pictures)).toEqual(pictures);
  });
});
