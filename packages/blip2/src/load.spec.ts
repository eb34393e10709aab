import { cp, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { dispose, memory } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import type { DType } from '@blip2/weights';
import { WeightsError } from '@blip2/weights';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import { leafValues, tiny } from '../spec/golden';
import { forward, ModelError } from './index';
import type { Blip2 } from './index';
import { loadFolder } from './node';

const EMBED = 'language_model.model.decoder.embed_tokens.weight';
const HEAD = 'language_model.lm_head.weight';

interface Stored {
  name: string;
  shape: number[];
  data: Float32Array;
}

describe('loadFolder', () => {
  let dir: string;
  const file = () => join(dir, 'model.safetensors');

  beforeAll(() => useBackend('cpu'));
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'blip2-load-'));
    await cp(tiny, dir, { recursive: true });
  });
  afterEach(() => rm(dir, { recursive: true }));

  /** Rewrites the checkpoint's tensors. */
  async function change(edit: (tensors: Stored[]) => Stored[], dtype: DType = 'F32'): Promise<void> {
    const reader = await openWeights(tiny);
    const stored: Stored[] = [];
    for (const [name, { shape }] of reader.entries)
      stored.push({ name, shape, data: await reader.readFloat32(name) });
    await reader.close();
    await writeSafetensors(
      file(),
      edit(stored).map((t) => ({ ...t, dtype })),
    );
  }

  async function values(model: Blip2): Promise<Record<string, Float32Array>> {
    const result = Object.fromEntries(await leafValues(model.params));
    dispose(model.params);
    return result;
  }

  it('reports progress up to the number of parameters', async () => {
    const seen: number[] = [];
    const model = await loadFolder(dir, { onProgress: ({ loaded, total }) => seen.push(loaded / total) });
    expect(seen.at(-1)).toBe(1);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    dispose(model.params);
  });

  it('accepts embed_tokens, lm_head or both, and buffers', async () => {
    const expected = await values(await loadFolder(tiny));
    const isEmbed = ({ name }: Stored) => name === EMBED;
    await change((ts) => ts.map((t) => (isEmbed(t) ? { ...t, name: HEAD } : t)));
    expect(await values(await loadFolder(dir))).toEqual(expected);
    const buffer = { name: 'vision_model.embeddings.position_ids', shape: [2], data: new Float32Array(2) };
    await change((ts) => [...ts, { ...ts.find(isEmbed)!, name: HEAD }, buffer]);
    expect(await values(await loadFolder(dir))).toEqual(expected);
  });

  it('keeps an lm_head that differs from embed_tokens, as transformers does, even if the config ties them', async () => {
    const head = new Float32Array(64 * 24).fill(0.5);
    await change((ts) => [...ts, { ...ts.find(({ name }) => name === EMBED)!, name: HEAD, data: head }]);
    const model = await loadFolder(dir);
    expect(model.config.text_config.tie_word_embeddings).toBe(false);
    expect(model.config.raw.text_config).toMatchObject({ tie_word_embeddings: false });
    expect(await model.params.language_model.lm_head!.weight.data()).toEqual(head);
    dispose(model.params);
  });

  it('requires lm_head if the config unties it, and uses it', async () => {
    const config = join(dir, 'config.json');
    const json = JSON.parse(await readFile(config, 'utf8')) as { text_config: object };
    await writeFile(
      config,
      JSON.stringify({ ...json, text_config: { ...json.text_config, tie_word_embeddings: false } }),
    );
    await expect(loadFolder(dir)).rejects.toThrow(HEAD);
    await change((ts) => [
      ...ts,
      { ...ts.find(({ name }) => name === EMBED)!, name: HEAD, data: new Float32Array(64 * 24) },
    ]);
    const model = await loadFolder(dir);
    const tokens = {
      input_ids: Int32Array.of(2, 7),
      attention_mask: Int32Array.of(1, 1),
      shape: [1, 2] as [number, number],
    };
    expect(new Set(await forward(model, undefined, tokens).logits.data())).toEqual(new Set([0]));
    dispose(model.params);
  });

  it.each(['F16', 'BF16', 'F64'] as const)('reads %s as float32', async (dtype) => {
    const expected = await values(await loadFolder(tiny));
    await change((ts) => ts, dtype);
    const found = await values(await loadFolder(dir));
    const precision = { F16: 2 ** -11, BF16: 2 ** -8, F64: 0 }[dtype];
    for (const [name, x] of Object.entries(expected))
      x.forEach((v, i) =>
        expect(Math.abs(found[name][i] - v)).toBeLessThanOrEqual(precision * Math.abs(v) + 1e-7),
      );
  });

  it('reports every missing, unexpected and misshapen tensor in one error, and frees all memory', async () => {
    const { numTensors } = memory();
    await change((ts) => [
      ...ts
        .filter(({ name }) => name !== 'query_tokens' && name !== EMBED)
        .map((t) => (t.name === 'language_projection.weight' ? { ...t, shape: [16, 24] } : t)),
      { name: 'opt_proj.weight', shape: [1], data: new Float32Array(1) },
    ]);
    const error = await loadFolder(dir).catch((e: unknown) => e as Error);
    expect(error).toBeInstanceOf(WeightsError);
    const { message } = error as Error;
    for (const part of [
      'query_tokens',
      EMBED,
      'language_projection.weight',
      '[24, 16]',
      '[16, 24]',
      'opt_proj.weight',
    ])
      expect(message).toContain(part);
    expect(memory().numTensors).toBe(numTensors);
  });

  it('rejects a truncated file', async () => {
    await truncate(file(), 100_000);
    await expect(loadFolder(dir)).rejects.toThrow(WeightsError);
    await expect(loadFolder(dir)).rejects.toThrow(/model\.safetensors/);
  });

  it('rejects a config that is missing, broken or of another model', async () => {
    const config = join(dir, 'config.json');
    const json = JSON.parse(await readFile(config, 'utf8')) as Record<string, unknown>;
    await writeFile(config, JSON.stringify({ ...json, text_config: { model_type: 'gpt2' } }));
    await expect(loadFolder(dir)).rejects.toThrow(/config\.json: text_config.*found "gpt2"/);
    await writeFile(config, '{ "model_type": ');
    await expect(loadFolder(dir)).rejects.toThrow(ModelError);
    await rm(config);
    await expect(loadFolder(dir)).rejects.toThrow(/config\.json: expected a model's config\.json: ENOENT/);
  });
});
