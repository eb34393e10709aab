import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dispose, flatten } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { addLora, applyAdapter, mergeLora } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { writeSafetensors } from '@blip2/weights/node';
import { asTensor, batch, fixtures, golden, goldenFloats, relativeError, tiny } from '../spec/golden';
import { forward, initModel, ModelError, parseConfig } from './index';
import type { Blip2 } from './index';
import { loadFolder, saveModel } from './node';
import type { SaveOptions } from './node';

/** If set, the saved models and their logits are kept in this folder for tools/parity/check_saved.py. */
const kept = process.env['BLIP2_PARITY_OUT'];

describe('saveModel', () => {
  let root: string;
  let model: Blip2;
  let image: { pixel_values: Tensor4D };
  const tokens = batch(golden.cases.right);

  beforeAll(async () => {
    await useBackend('cpu');
    root = kept ?? (await mkdtemp(join(tmpdir(), 'blip2-save-')));
    await mkdir(root, { recursive: true });
    model = await loadFolder(tiny);
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, 2) };
  });
  afterAll(async () => {
    dispose([model.params, image]);
    if (!kept) await rm(root, { recursive: true });
  });

  const logitsOf = async (m: Blip2) => (await forward(m, image, tokens).logits.data()) as Float32Array;
  const readJson = async (...path: string[]) => JSON.parse(await readFile(join(root, ...path), 'utf8'));

  /** Saves the model, writes its logits for Python, and loads it again. */
  async function roundTrip(m: Blip2, name: string, o: SaveOptions = {}): Promise<Blip2> {
    await saveModel(m, join(root, name), { copyFrom: tiny, ...o });
    const loaded = await loadFolder(join(root, name));
    const [B, T] = tokens.shape;
    await writeSafetensors(join(root, `${name}.expected.safetensors`), [
      {
        name: 'pixel_values',
        dtype: 'F32',
        shape: image.pixel_values.shape,
        data: (await image.pixel_values.data()) as Float32Array,
      },
      { name: 'input_ids', dtype: 'I64', shape: [B, T], data: tokens.input_ids },
      { name: 'attention_mask', dtype: 'I64', shape: [B, T], data: tokens.attention_mask },
      { name: 'logits', dtype: 'F32', shape: [B, T, 64], data: await logitsOf(loaded) },
    ]);
    return loaded;
  }

  it('writes back exactly what was loaded, with config and companion files', async () => {
    const loaded = await roundTrip(model, 'float32');
    const [before, after] = [flatten(model.params), flatten(loaded.params)];
    expect([...after.keys()]).toEqual([...before.keys()]);
    for (const [name, t] of before) expect(await after.get(name)!.data(), name).toEqual(await t.data());
    expect(loaded.config.raw).toEqual(model.config.raw);
    const text = await readFile(join(root, 'float32', 'config.json'), 'utf8');
    expect(text).toContain('"initializer_factor": 1.0,'); // transformers 5 refuses 1
    expect(text).toContain('"num_query_tokens": 4,');
    expect((await readdir(join(root, 'float32'))).sort()).toEqual((await readdir(tiny)).sort());
  });

  it('splits large weights into shards', async () => {
    const loaded = await roundTrip(model, 'sharded', { maxShardBytes: 60_000 });
    const files = await readdir(join(root, 'sharded'));
    expect(files).toContain('model.safetensors.index.json');
    expect(files.filter((name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name)).length).toBeGreaterThan(
      2,
    );
    expect(await logitsOf(loaded)).toEqual(await logitsOf(model));
  });

  it.each([
    ['BF16', 'bfloat16', 2 ** -8],
    ['F16', 'float16', 2 ** -11],
  ] as const)('stores %s and says so in the config', async (dtype, word, precision) => {
    const loaded = await roundTrip(model, dtype, { dtype });
    const [a, b] = [model, loaded].map((m) => m.params.language_projection.weight);
    const error = relativeError(await b.data(), await a.data());
    expect(error).toBeGreaterThan(0);
    expect(error).toBeLessThanOrEqual(precision);
    expect((await readJson(dtype, 'config.json')).dtype).toBe(word);
  });

  it('keeps unknown keys of the config and corrects every dtype in it', async () => {
    const { raw } = model.config;
    const legacy = { ...raw, dtype: undefined, torch_dtype: 'float32', projection_dim: 3 };
    const config = parseConfig({
      ...legacy,
      text_config: { ...(raw.text_config as object), torch_dtype: 'float16', prefix: '</s>' },
    });
    await roundTrip({ ...model, config }, 'legacy');
    const saved = await readJson('legacy', 'config.json');
    expect(saved).toMatchObject({
      torch_dtype: 'float32',
      projection_dim: 3,
      text_config: { torch_dtype: 'float32', prefix: '</s>' },
    });
  });

  it('saves a model from initModel', async () => {
    const { vision_config, qformer_config, text_config } = model.config;
    const own = { vision_config, qformer_config, text_config, num_query_tokens: 4, image_token_index: 58 };
    const made = initModel(parseConfig(JSON.parse(JSON.stringify(own))), 3);
    const loaded = await roundTrip(made, 'initialised');
    expect(await logitsOf(loaded)).toEqual(await logitsOf(made));
  });

  it('saves a merged adapter with the logits of the adapter', async () => {
    const adapter = await loadAdapter(`${fixtures}tiny-adapter`);
    const merged = { ...model, params: mergeLora(applyAdapter(model.params, adapter)) };
    const loaded = await roundTrip(merged, 'merged');
    const expected = (await goldenFloats()).get('adapter.logits')!.values;
    const real = (x: Float32Array) => x.filter((_, i) => tokens.attention_mask[Math.floor(i / 64)] === 1);
    expect(relativeError(real(await logitsOf(loaded)), real(expected))).toBeLessThan(1e-5);
  });

  it('rejects adapters and weights that do not fit, and writes nothing', async () => {
    const { tree } = addLora(model.params, { r: 2, target_modules: ['q_proj'] }, 1);
    const dir = join(root, 'refused');
    await expect(saveModel({ ...model, params: tree }, dir)).rejects.toThrow(ModelError);
    await expect(saveModel({ ...model, params: tree }, dir)).rejects.toThrow(
      /4 adapter tensors.*merge the adapter/s,
    );
    const { query_tokens, ...rest } = model.params;
    const wrong = { ...rest, query_tokens: rest.language_projection.bias, extra: query_tokens };
    await expect(saveModel({ ...model, params: wrong as never }, dir)).rejects.toThrow(
      /unexpected extra\nquery_tokens: expected \[1,4,16\], found \[24\]/,
    );
    expect(existsSync(dir)).toBe(false);
  });
});
