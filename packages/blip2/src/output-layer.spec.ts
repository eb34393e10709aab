/** The output layer in 8 bits: what is written with it, and what stays exact. */
import { cp, mkdtemp, readdir, rm, stat, utimes } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dispose, flatten, isQuantised, linear, memory, storedTensor, tensor, tidy } from '@blip2/nn';
import type { StoredWeight, Tensor, Tensor2D, Tensor4D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { addLora } from '@blip2/peft-lora';
import type { TensorEntry, WeightReader } from '@blip2/weights';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { asTensor, batch, golden, goldenFloats, tiny } from '../spec/golden';
import { forward, generate, loss, outputLayerName } from './index';
import type { Blip2 } from './index';
import { languageModel } from './language-model';
import type { Int8FileOptions } from './node';
import { loadConfig, loadFolder } from './node';
import { roundedOutputLayer, writingModel } from './output-layer';

const T5 = `${tiny}-t5`;

describe.skipIf(!(await availableBackends()).includes('native'))('the output layer in 8 bits', () => {
  let root: string;
  let image: { pixel_values: Tensor4D };
  const load = (dir: string, o: Int8FileOptions = {}) => loadFolder(dir, { store_from: 1, int8: o });
  const ids = (model: Blip2) => {
    const { tokens, options } = golden.generate[0];
    return generate(model, image, batch(tokens), options);
  };

  beforeAll(async () => {
    await useBackend('native', { precision: 'int8' });
    const rows = golden.generate[0].tokens.shape[0];
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, rows) };
  });
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'blip2-output-'));
    return () => rm(root, { recursive: true });
  });
  afterAll(() => {
    dispose(image);
    expect(memory()).toMatchObject({ numTensors: 0, numBytesStored: 0 });
  });

  const values = async (f: () => Tensor) => {
    const found = tidy(f);
    const data = [...(await found.data())];
    found.dispose();
    return data;
  };

  it('writes texts; the loss and all scores of a text are those without it', async () => {
    const model = await load(tiny);
    const { output_layer, ...without } = model;
    expect(isQuantised(output_layer!.rounded)).toBe(true);
    expect([...flatten(model.params).values()]).not.toContain(output_layer!.rounded);
    const tokens = batch(golden.cases.right);
    const pixel_values = asTensor<Tensor4D>((await goldenFloats()).get('pixel_values')!, 2);
    for (const f of [
      (m: Blip2) => loss(m, { pixel_values }, tokens),
      (m: Blip2) => forward(m, { pixel_values }, tokens).logits,
    ])
      expect(await values(() => f(model))).toEqual(await values(() => f(without)));
    // Texts follow the layer: with another one, they are others.
    const own = await ids(model);
    const wrong = storedTensor(
      await roundedOutputLayer({
        ...{ shape: [output_layer!.rounded.shape[0], output_layer!.rounded.shape[1]] as const },
        ...{ data: { bytes: otherFloats(output_layer!.rounded.size) }, encoding: { kind: 'F32' as const } },
      }),
      1,
    )!;
    expect(await ids({ ...model, output_layer: { ...output_layer!, rounded: wrong } })).not.toEqual(own);
    dispose([model, wrong, pixel_values]);
  });

  it('is not used if the exact one trains, is adapted or is replaced', async () => {
    const trained = await load(tiny, { keep: (name) => name.endsWith('embed_tokens.weight') });
    expect(trained.output_layer).toBeUndefined();
    const model = await load(T5);
    const { config, params, output_layer } = model;
    const written = (p: Blip2['params']) =>
      languageModel(config).head(writingModel({ ...model, params: p }).params.language_model).weight;
    expect(written(params)).toBe(output_layer!.rounded);
    const { tree: adapted } = addLora(params, { target_modules: ['lm_head'], r: 2 }, 1);
    expect(written(adapted)).toBe(output_layer!.exact);
    const clone = output_layer!.exact.clone();
    const replaced = { ...params, language_model: { ...params.language_model, lm_head: { weight: clone } } };
    expect(written(replaced)).toBe(clone);
    dispose([trained, model, adapted, clone]);
  });

  it.each([
    ['OPT, tied', tiny],
    ['T5', T5],
  ])('is kept in the file of the rounded weights, with the same bits: %s', async (_, dir) => {
    const cache_dir = join(root, 'cache');
    const [made, mapped] = [await load(dir, { cache_dir }), await load(dir, { cache_dir })];
    const inMemory = await load(dir);
    const [file] = (await readdir(cache_dir)).filter((name) => name.endsWith('.safetensors'));
    const reader = await openWeights(join(cache_dir, file));
    expect([...reader.entries.keys()]).toContain('output_layer');
    await reader.close();
    const all = [made, mapped, inMemory].map(({ output_layer }) => output_layer!.rounded);
    const [one, ...others] = await Promise.all(all.map(async (t) => [...(await t.data())]));
    for (const other of others) expect(other).toEqual(one);
    if (dir === tiny) expect(await ids(mapped)).toEqual(await ids(inMemory));
    dispose([made, mapped, inMemory]);
  });

  it('is made again if it alone is replaced, also with the same size and time', async () => {
    const [dir, cache_dir] = [join(root, 'model'), join(root, 'cache')];
    await cp(tiny, dir, { recursive: true });
    const head = outputLayerName(await loadConfig(dir));
    const weights = join(dir, 'model.safetensors');
    const times = async (factor: number) => {
      await rewrite(dir, async (reader, { name }) => {
        const values = await reader.readFloat32(name);
        return { name, data: name === head ? values.map((x) => factor * x) : values };
      });
      await utimes(weights, 1e9, 1e9);
    };
    await times(1);
    const { size } = await stat(weights);
    const before = await load(dir, { cache_dir });
    await times(2);
    expect((await stat(weights)).size).toBe(size);
    const after = await load(dir, { cache_dir });
    const [was, is] = await Promise.all([before, after].map((m) => m.output_layer!.rounded.data()));
    expect([...is]).toEqual([...was].map((x) => 2 * x));
    dispose([before, after]);
  });

  it('is there when the file was removed since it was loaded', async () => {
    const cache_dir = join(root, 'cache');
    dispose(await load(tiny, { cache_dir }));
    const model = await load(tiny, { cache_dir });
    const expected = await ids(model);
    const again = await load(tiny, { cache_dir });
    await rm(cache_dir, { recursive: true });
    expect(await ids(again)).toEqual(expected);
    dispose([model, again]);
  });

  it('is found under either name of a tied tensor', async () => {
    const [dir, cache_dir] = [join(root, 'model'), join(root, 'cache')];
    await cp(tiny, dir, { recursive: true });
    const name = outputLayerName(await loadConfig(tiny));
    expect(name).toBe('language_model.model.decoder.embed_tokens.weight');
    const other = 'language_model.lm_head.weight';
    await rewrite(dir, async (reader, entry) => ({
      ...{ name: entry.name === name ? other : entry.name, data: await reader.readFloat32(entry.name) },
    }));
    const [model, original] = [await load(dir, { cache_dir }), await load(tiny)];
    const found = await Promise.all(
      [model, original].map(async (m) => [...(await m.output_layer!.rounded.data())]),
    );
    expect(found[0]).toEqual(found[1]);
    dispose([model, original]);
  });

  it('a column of large numbers leaves the others as exact as they are without it', async () => {
    const [V, D] = [200, 64];
    const plain = Float32Array.from({ length: V * D }, (_, i) => Math.sin(i * 12.9898));
    const errors = [];
    for (const times of [1, 100]) {
      const w = plain.map((value, i) => (i % D === 7 ? times * value : value));
      const weight: StoredWeight = {
        ...{ shape: [V, D], data: { bytes: new Uint8Array(w.buffer) }, encoding: { kind: 'F32' } },
      };
      const rounded = storedTensor(await roundedOutputLayer(weight), 1)!;
      const x = tensor<Tensor2D>(
        plain.subarray(0, D).map((value, k) => (k === 7 ? value / times : value)),
        [1, D],
      );
      const exact = tensor<Tensor2D>(w, [V, D]);
      await useBackend('native');
      const [found, wanted] = [linear({ weight: rounded }, x), linear({ weight: exact }, x)];
      const [a, b] = await Promise.all([found.data(), wanted.data()]);
      errors.push(Math.sqrt((a as Float32Array).reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / V));
      await useBackend('native', { precision: 'int8' });
      dispose([rounded, x, exact, found, wanted]);
    }
    expect(errors[1] / errors[0]).toBeLessThan(1.5);
  });
});

type Rewritten = Pick<TensorEntry, 'name'> & { data: Float32Array };

/** Replaces the tensors of a checkpoint, in float32. */
async function rewrite(dir: string, f: (reader: WeightReader, entry: TensorEntry) => Promise<Rewritten>) {
  const reader = await openWeights(tiny);
  const entries = [...reader.entries.values()];
  const tensors = await Promise.all(
    entries.map(async (entry) => ({
      ...{ shape: entry.shape, dtype: 'F32' as const, ...(await f(reader, entry)) },
    })),
  );
  await writeSafetensors(join(dir, 'model.safetensors'), tensors, reader.metadata);
  await reader.close();
}

/** Other numbers than the model's. */
function otherFloats(count: number): Uint8Array {
  return new Uint8Array(Float32Array.from({ length: count }, (_, i) => Math.sin(i * 78.233)).buffer);
}
