import { cp, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DecodeOptions } from '@blip2/data-captions';
import { loadFolder } from '@blip2/blip2/node';
import { useBackend } from '@blip2/nn/node';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { TINY_MODEL } from '../../spec/tiny';
import { featureKey, hiddenKey } from './key';
import type { CachedStage } from './stage';
import { loadedStage } from './stage';

beforeAll(async () => void (await useBackend('cpu')));

async function copyOfModel(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'blip2-key-'));
  await cp(TINY_MODEL, dir, { recursive: true });
  return dir;
}

/** Adds a little to the first value of one tensor. */
async function nudge(dir: string, tensor: string): Promise<void> {
  const reader = await openWeights(dir);
  const tensors = [];
  for (const [name, { shape }] of reader.entries) {
    const data = await reader.readFloat32(name);
    if (name === tensor) data[0] += 0.5;
    tensors.push({ name, dtype: 'F32' as const, shape, data });
  }
  await reader.close();
  await writeSafetensors(join(dir, 'model.safetensors'), tensors);
}

async function keyOf(dir: string, stage: CachedStage, decoding?: DecodeOptions) {
  return featureKey(dir, loadedStage(await loadFolder(dir), stage), decoding);
}

describe('featureKey', () => {
  it('is the same for the same model in another folder, and another for each stage', async () => {
    const [here, there] = [
      await keyOf(TINY_MODEL, 'query_embeds'),
      await keyOf(await copyOfModel(), 'query_embeds'),
    ];
    expect(there).toEqual(here);
    expect((await keyOf(TINY_MODEL, 'image_features')).id).not.toBe(here.id);
  });

  it('changes with the weights that produce the features, and with no others', async () => {
    const dir = await copyOfModel();
    const changes = async (stage: CachedStage, tensor: string) => {
      const before = await keyOf(dir, stage);
      await nudge(dir, tensor);
      const after = await keyOf(dir, stage);
      return [before.made_of.weights !== after.made_of.weights, before.id !== after.id];
    };
    await nudge(dir, 'none'); // stored as float32 from here on
    const projection = 'language_projection.weight';
    expect(await changes('query_embeds', 'vision_model.post_layernorm.weight')).toEqual([true, true]);
    expect(await changes('query_embeds', projection)).toEqual([true, true]);
    expect(await changes('image_features', projection)).toEqual([false, false]);
    expect(await changes('query_embeds', 'language_model.model.decoder.final_layer_norm.weight')).toEqual([
      false,
      false,
    ]);
  });

  it('of hidden states changes with the weights below their layer, and with no others', async () => {
    const dir = await copyOfModel();
    const keyAt = async (depth: number) => hiddenKey(dir, await loadFolder(dir), depth);
    await nudge(dir, 'none');
    const first = await keyAt(1);
    expect(await keyAt(1)).toEqual(first);
    expect((await keyAt(2)).id).not.toBe(first.id);
    const decoder = 'language_model.model.decoder.';
    for (const above of [
      'layers.1.fc1.weight',
      'layers.1.self_attn_layer_norm.bias',
      'final_layer_norm.weight',
    ]) {
      await nudge(dir, decoder + above);
      expect(await keyAt(1), above).toEqual(first);
    }
    for (const below of ['layers.0.fc2.weight', 'embed_tokens.weight', 'embed_positions.weight']) {
      const before = await keyAt(1);
      await nudge(dir, decoder + below);
      const after = await keyAt(1);
      expect(after.made_of.weights, below).not.toBe(before.made_of.weights);
      expect(after.id).not.toBe(before.id);
    }
    for (const below of ['vision_model.post_layernorm.weight', 'language_projection.weight']) {
      const before = await keyAt(1);
      await nudge(dir, below);
      expect((await keyAt(1)).id, below).not.toBe(before.id);
    }
  });

  it('changes with the preprocessing and with the way the backend computes', async () => {
    const dir = await copyOfModel();
    const before = await keyOf(dir, 'query_embeds');
    const defaults = { image_orientation: 'exif', alpha: 'white' } as const;
    expect((await keyOf(dir, 'query_embeds', defaults)).id).toBe(before.id);
    for (const other of [{ image_orientation: 'ignore' }, { alpha: 'drop' }] as const)
      expect((await keyOf(dir, 'query_embeds', other)).id).not.toBe(before.id);
    const file = join(dir, 'preprocessor_config.json');
    await writeFile(file, (await readFile(file, 'utf8')).replace('image_std', 'image_std '));
    const after = await keyOf(dir, 'query_embeds');
    expect(after.id).not.toBe(before.id);
    expect(after.made_of).toMatchObject({ ...before.made_of, preprocessing: after.made_of.preprocessing });
    await useBackend('wasm');
    const wasm = await keyOf(dir, 'query_embeds');
    await useBackend('cpu');
    expect(wasm.made_of.numerics).not.toBe(after.made_of.numerics);
  });
});
