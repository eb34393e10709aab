/** A model with memory-mapped matrices equals the model with matrices in memory. */
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dispose, memory, tidy, valueAndGrads } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { applyPreset, mergeLora } from '@blip2/peft-lora';
import type { PresetName } from '@blip2/peft-lora';
import type { DType } from '@blip2/weights';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import { leafValues, asTensor, batch, golden, goldenFloats, relativeError, tiny } from '../spec/golden';
import { adapterBase, forward, generate, loss } from './index';
import type { Blip2 } from './index';
import { loadFolder, saveModel } from './node';

const backends = await availableBackends();

describe.skipIf(!backends.includes('native'))('a stored model', () => {
  let root: string;
  let image: { pixel_values: Tensor4D };
  const tokens = batch(golden.cases.right);

  beforeAll(async () => {
    await useBackend('native');
    root = await mkdtemp(join(tmpdir(), 'blip2-stored-'));
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, 2) };
  });
  afterAll(async () => {
    dispose(image);
    expect(memory()).toMatchObject({ numTensors: 0, numBytesStored: 0 });
    await rm(root, { recursive: true });
  });

  /** The tiny checkpoint in another type. */
  async function inType(dtype: DType): Promise<string> {
    const dir = join(root, dtype);
    await cp(tiny, dir, { recursive: true });
    const reader = await openWeights(tiny);
    const tensors = [...reader.entries.values()].map(({ name, shape }) => ({
      ...{ name, shape, dtype, data: () => reader.readFloat32(name) },
    }));
    await writeSafetensors(join(dir, 'model.safetensors'), tensors);
    await reader.close();
    return dir;
  }

  const stored = (dir: string) => loadFolder(dir, { store_from: 1 });
  const inMemory = (dir: string) => loadFolder(dir, { store_from: Infinity });

  /** Loss and gradients of a preset. */
  async function step({ config, params: base }: Blip2, preset: PresetName): Promise<Float32Array[]> {
    const { params, trainables } = applyPreset(
      base,
      preset,
      { init_lora_weights: false, target_modules: ['q_proj', 'fc1'] },
      1,
    );
    const xs = [...trainables.values()];
    const { value, grads } = tidy(() => valueAndGrads(() => loss({ config, params }, image, tokens), xs));
    const actual = await Promise.all([value, ...grads].map(async (t) => (await t.data()) as Float32Array));
    dispose([value, ...grads]);
    for (const x of xs) x.dispose();
    return actual;
  }

  /** Relative; gradients that are zero except for rounding (keys' biases) must only be tiny. */
  const distance = (actual: Float32Array, want: Float32Array) => {
    const size = want.reduce((max, x) => Math.max(max, Math.abs(x)), 1e-3);
    return actual.reduce((max, x, i) => Math.max(max, Math.abs(x - want[i])), 0) / size;
  };

  it.each(['F32', 'F16', 'BF16'] as const)(
    'computes, trains and generates as one in memory: %s',
    async (dtype) => {
      const dir = await inType(dtype);
      const [file, ram] = [await stored(dir), await inMemory(dir)];
      expect(memory().numBytesStored).toBeGreaterThan(1000);
      expect(await leafValues(file.params)).toEqual(await leafValues(ram.params));
      const [a, b] = [file, ram].map((model) => tidy(() => forward(model, image, tokens).logits));
      expect(relativeError(await a.data(), await b.data())).toBeLessThan(1e-6);
      for (const preset of ['lora', 'qformer', 'full'] as const) {
        const [actual, want] = [await step(file, preset), await step(ram, preset)];
        actual.forEach((x, i) => expect(distance(x, want[i]), `${preset} ${i}`).toBeLessThan(2e-5));
      }
      const { tokens: prompt, options } = golden.generate[0];
      const images = asTensor<Tensor4D>((await goldenFloats()).get('pixel_values')!, prompt.shape[0]);
      const all = { pixel_values: images };
      const [said, wanted] = [
        await generate(file, all, batch(prompt), options),
        await generate(ram, all, batch(prompt), options),
      ];
      expect(said).toEqual(wanted);
      dispose([images, a, b, file.params, ram.params]);
    },
  );

  it('saves its exact values, even over its own files, and merges adapters into them', async () => {
    const dir = await inType('BF16');
    const model = await stored(dir);
    const before = await leafValues(model.params);
    await saveModel(model, dir, { dtype: 'F32' }); // the mapped file lives on until the tensors are gone
    expect(await leafValues(model.params)).toEqual(before);
    const again = await inMemory(dir);
    expect(await leafValues(again.params)).toEqual(before);

    const adapt = (m: Blip2) =>
      applyPreset(m.params, 'lora', { init_lora_weights: false }, 5, adapterBase(m.config)).params;
    const [one, two] = [adapt(model), adapt(again)];
    const merged = [mergeLora(one), mergeLora(two)];
    expect(await leafValues(merged[0])).toEqual(await leafValues(merged[1]));
    await saveModel({ ...model, params: merged[0] }, join(root, 'merged'));
    const loaded = await stored(join(root, 'merged'));
    expect(await leafValues(loaded.params)).toEqual(await leafValues(merged[1]));
    dispose([one, two, merged, loaded.params]);
  });

  it('closes its files when loading fails half-way', async () => {
    const before = memory();
    const stop = new Error('stop');
    let seen = 0;
    const onProgress = () => {
      if (++seen === 40) throw stop;
    };
    await expect(loadFolder(tiny, { store_from: 1, onProgress })).rejects.toBe(stop);
    expect(memory()).toEqual(before);
  });
});
