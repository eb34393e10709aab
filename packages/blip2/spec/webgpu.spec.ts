/** The precisions int8 and int4 on WebGPU: the weights of native, with activations in float32. */
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dispose, flatten, isQuantised, memory, tidy, valueAndGrads } from '@blip2/nn';
import type { BackendName, Precision, Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { applyPreset } from '@blip2/peft-lora';
import { describe, expect, it } from 'vitest';
import { useSoftwareDriver } from '../../backend-webgpu/spec/software';
import { forward, generate, loss } from '../src/index';
import type { Blip2, Smoothing } from '../src/index';
import { loadConfig, loadFolder, measureSmoothing } from '../src/node';
import { asTensor, batch, golden, goldenFloats, relativeError, tiny } from './golden';

type Bits = 8 | 4;
const tokens = batch(golden.cases.right);
const LORA = { init_lora_weights: false, target_modules: ['q_proj', 'fc1'] };

const pictures = async (rows: number) =>
  asTensor<Tensor4D>((await goldenFloats()).get('pixel_values')!, rows);

/** Logits, the loss, gradients of adapters, and captions. */
async function results(model: Blip2) {
  const pixel_values = await pictures(2);
  const { params, trainables } = applyPreset(model.params, 'lora', LORA, 1);
  const xs = [...trainables.values()];
  const { value, grads } = tidy(() =>
    valueAndGrads(() => loss({ config: model.config, params }, { pixel_values }, tokens), xs),
  );
  const { logits } = tidy(() => forward(model, { pixel_values }, tokens));
  const tensors = [logits, value, ...grads];
  const numbers = await Promise.all(tensors.map(async (x) => Float32Array.from(await x.data())));
  const captions: number[][][] = [];
  for (const { tokens: prompt, options } of golden.generate.slice(0, 2)) {
    const image = { pixel_values: await pictures(prompt.shape[0]) };
    captions.push(await generate(model, image, batch(prompt), options));
    dispose(image);
  }
  dispose([...tensors, ...xs, pixel_values]);
  return { numbers, captions };
}

/** The factors of the tiny model. */
async function smoothingOf(text_bits: Bits): Promise<Smoothing> {
  const pixel_values = await pictures(2);
  const run = (model: Blip2) => tidy(() => loss(model, { pixel_values }, tokens));
  const { errors, ...found } = await measureSmoothing(tiny, await loadConfig(tiny), run, { text_bits });
  expect([...errors.values()].every(({ chosen, plain }) => chosen <= plain)).toBe(true);
  dispose(pixel_values);
  return found;
}

describe.skipIf(!useSoftwareDriver())('rounded weights on WebGPU', () => {
  it.each([
    ['int8', 8],
    ['int4', 4],
  ] as const)(
    '%s: the numbers and captions of native with the same weights in float32',
    async (precision, text_bits) => {
      const cache_dir = await mkdtemp(join(tmpdir(), 'blip2-webgpu-'));
      await useBackend('native', { precision: 'int8' });
      const smoothing = await smoothingOf(text_bits);
      const on = async (backend: BackendName, as: Precision) => {
        await useBackend(backend, { precision: as });
        const before = memory();
        const model = await loadFolder(tiny, { int8: { cache_dir, smoothing, text_bits } });
        const rounded = [...flatten(model.params)].filter(([, leaf]) => isQuantised(leaf)).length;
        const found = await results(model);
        dispose(model.params);
        expect(memory()).toEqual(before);
        return { ...found, rounded };
      };
      const expected = await on('native', 'float32');
      const files = async () => {
        const names = (await readdir(cache_dir)).filter((name) => name.endsWith('.safetensors'));
        return Promise.all(names.map(async (name) => [name, (await stat(join(cache_dir, name))).ino]));
      };
      const made = await files();
      expect(made).toHaveLength(1);
      const found = await on('webgpu', precision);
      expect(await files()).toEqual(made); // the file of native
      expect(found.rounded).toBe(expected.rounded);
      expect(found.rounded).toBeGreaterThan(10);
      found.numbers.forEach((values, i) =>
        expect(relativeError(values, expected.numbers[i]), `result ${i}`).toBeLessThan(5e-5),
      );
      expect(found.captions).toEqual(expected.captions);
      await rm(cache_dir, { recursive: true });
    },
  );

  it('measures factors itself', async () => {
    await useBackend('webgpu', { precision: 'int4' });
    const before = memory();
    const { factors, exact } = await smoothingOf(4);
    expect(memory()).toEqual(before);
    expect(factors.size).toBeGreaterThan(0);
    expect(exact).toEqual([]);
  });
});
