/** Adapters that others made: old PEFT's files, on a part of the model, with embeddings, in subfolders. */
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { add, flatten } from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BASE, baseTree, fixture, readJson, valuesOf } from '../spec/fixtures';
import { loadAdapter } from './adapter-folder';
import { applyAdapter } from './apply';
import { addLora, loraParts } from './lora';
import { saveAdapter } from './adapter-folder';

await useBackend('cpu');
const base = await baseTree();
const EMBED = 'language_model.model.decoder.embed_tokens.weight';
const HEAD = 'language_model.lm_head.weight';

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'foreign-'))));
afterAll(() => rm(folder, { recursive: true }));
let count = 0;
const freshPath = () => join(folder, `case-${count++}`);

async function contents(tree: object): Promise<[string, number[]][]> {
  return Promise.all(
    [...flatten(tree)].map(async ([name, leaf]): Promise<[string, number[]]> => [name, await valuesOf(leaf)]),
  );
}

/** The tensors of an adapter folder under other names, with another configuration. */
async function renamed(
  from: string,
  rename: (name: string) => string,
  config: object = {},
  extra: Record<string, Tensor> = {},
): Promise<string> {
  const dir = freshPath();
  await mkdir(dir);
  const reader = await openWeights(join(from, 'adapter_model.safetensors'));
  const tensors = [];
  for (const [name, { shape }] of reader.entries)
    tensors.push({ name: rename(name), shape, dtype: 'F32' as const, data: await reader.readFloat32(name) });
  for (const [name, value] of Object.entries(extra))
    tensors.push({
      name,
      shape: value.shape,
      dtype: 'F32' as const,
      data: Float32Array.from(await valuesOf(value)),
    });
  await reader.close();
  await writeSafetensors(join(dir, 'adapter_model.safetensors'), tensors);
  const json = { ...(await readJson(join(from, 'adapter_config.json'))), ...config };
  await writeFile(join(dir, 'adapter_config.json'), JSON.stringify(json));
  return dir;
}

const applied = async (dir: string) => contents(applyAdapter(base, await loadAdapter(dir), BASE));

describe("old PEFT's files", () => {
  it('adapter_model.bin and a configuration of PEFT 0.3 give the same tree as safetensors', async () => {
    expect(await applied(fixture('old'))).toEqual(await applied(fixture('adapter')));
  });

  it('a pickle that is not plain data is refused, not run', async () => {
    const dir = freshPath();
    await cp(fixture('old'), dir, { recursive: true });
    await writeFile(join(dir, 'adapter_model.bin'), 'no zip file');
    await expect(loadAdapter(dir)).rejects.toThrow(/adapter_model\.bin: expected a zip file of torch\.save/);
  });
});

describe('names that PEFT would not write', () => {
  const whole = () => applied(fixture('adapter'));
  it.each<[string, (name: string) => string]>([
    ['of the language model alone', (n) => n.replace('language_model.', '')],
    ['of the decoder alone', (n) => n.replace('language_model.model.', '')],
    ["of LAVIS's opt_model", (n) => `opt_model.${n.replace('language_model.', '')}`],
    ['of a state dict with the name of the adapter', (n) => n.replace('.weight', '.default.weight')],
    ['of a wrapped model', (n) => `module.${n}`],
    ["without PEFT's prefix", (n) => n.replace('base_model.model.', '')],
  ])('%s', async (_, rename) => {
    expect(await applied(await renamed(fixture('adapter'), rename))).toEqual(await whole());
  });

  it('targets of a part match in that part only, with its ranks and alphas', async () => {
    const dir = freshPath();
    const config = {
      target_modules: 'language_model\\..*fc1',
      r: 3,
      lora_alpha: 6,
      rank_pattern: { 'layers.1.fc1': 2 },
      alpha_pattern: { 'layers.0.fc1': 5 },
    };
    const { tree } = addLora(base, { ...config, init_lora_weights: false }, 1);
    await saveAdapter(dir, tree, config);
    const part = await renamed(dir, (n) => n.replace('language_model.', ''), { target_modules: ['fc1'] });
    const ours = applyAdapter(base, await loadAdapter(part), BASE);
    expect(await contents(ours)).toEqual(await contents(tree));
    const scalings = (of: object) => [...loraParts(of)].map(([name, { scaling }]) => [name, scaling]);
    expect(scalings(ours)).toEqual(scalings(tree));
  });

  it('a tensor that the model lacks is still refused', async () => {
    const dir = await renamed(
      fixture('adapter'),
      (n) => n,
      {},
      { 'base_model.model.other.weight': flatten(base).get(EMBED)! },
    );
    await expect(applied(dir)).rejects.toThrow(/unexpected "other\.weight": the model has no such tensor/);
  });
});

describe('embeddings beside the LoRA (save_embedding_layers)', () => {
  const embed = flatten(base).get(EMBED)!;
  const stored = (value: Tensor) => ({
    [`base_model.model.${EMBED}`]: value,
    [`base_model.model.${HEAD}`]: value,
  });

  it('equal to the base they change nothing', async () => {
    const dir = await renamed(fixture('adapter'), (n) => n, {}, stored(embed));
    expect(await applied(dir)).toEqual(await applied(fixture('adapter')));
  });

  it('others replace those of the base', async () => {
    const other = add(embed, embed);
    const dir = await renamed(fixture('adapter'), (n) => n, {}, stored(other));
    expect((await applied(dir)).find(([name]) => name === EMBED)![1]).toEqual(await valuesOf(other));
  });

  it('another vocabulary is named, with what to do', async () => {
    const flat = flatten(applyAdapter(base, await loadAdapter(fixture('adapter'))));
    const more = [...flat.values()].find(({ shape }) => shape.length === 2 && shape[0] !== embed.shape[0])!;
    const dir = await renamed(fixture('adapter'), (n) => n, {}, { [`base_model.model.${EMBED}`]: more });
    await expect(applied(dir)).rejects.toThrow(
      /made with a vocabulary of \d+ tokens, the model has 50: .*resize_token_embeddings/,
    );
  });
});

describe('where the files are', () => {
  it.each(['default', 'checkpoint-500', 'adapter'])('in the subfolder %s', async (name) => {
    const dir = freshPath();
    await cp(fixture('adapter'), join(dir, name), { recursive: true });
    expect(await applied(dir)).toEqual(await applied(fixture('adapter')));
    expect((await loadAdapter(join(dir, name, 'adapter_model.safetensors'))).where).toBe(join(dir, name));
  });

  it('several subfolders are listed', async () => {
    const dir = freshPath();
    for (const name of ['checkpoint-500', 'checkpoint-1000'])
      await cp(fixture('adapter'), join(dir, name), { recursive: true });
    await expect(loadAdapter(dir)).rejects.toThrow(
      /found 2 in its subfolders; name one: .*checkpoint-1000, .*checkpoint-500$/,
    );
  });

  it('a model, weights without their configuration, a configuration without weights', async () => {
    await expect(loadAdapter(fixture('base'))).rejects.toThrow(
      /found a model \(config\.json\); pass it as --model/,
    );
    const [weights, config] = [freshPath(), freshPath()];
    await cp(fixture('adapter'), weights, { recursive: true });
    await rm(join(weights, 'adapter_config.json'));
    await expect(loadAdapter(weights)).rejects.toThrow(/the weights of one alone; copy adapter_config\.json/);
    await cp(fixture('adapter'), config, { recursive: true });
    await rm(join(config, 'adapter_model.safetensors'));
    await expect(loadAdapter(config)).rejects.toThrow(
      /expected adapter_model\.safetensors or adapter_model\.bin/,
    );
  });

  it('empty tensors of ZeRO-3 are named', async () => {
    const dir = freshPath();
    await cp(fixture('adapter'), dir, { recursive: true });
    const reader = await openWeights(join(dir, 'adapter_model.safetensors'));
    const names = [...reader.entries.keys()];
    await reader.close();
    const none = names.map((name) => ({
      name,
      shape: [0],
      dtype: 'F32' as const,
      data: new Float32Array(0),
    }));
    await writeSafetensors(join(dir, 'adapter_model.safetensors'), none);
    await expect(applied(dir)).rejects.toThrow(/Its tensors are empty: DeepSpeed ZeRO-3/);
  });
});
