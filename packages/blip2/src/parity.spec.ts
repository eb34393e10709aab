import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dispose, flatten, memory, valueAndGrads } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { forward, generate, imageFeatures, imagePrompt, loss, queryEmbeds } from './index';
import type { Blip2 } from './index';
import { loadFolder } from './node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { asTensor, batch, fixtures, golden, goldenFloats, relativeError, tiny } from '../spec/golden';
import type { Floats } from '../spec/golden';

const backends = await availableBackends();
const floats = await goldenFloats();
const of = (name: string): Floats => floats.get(name) ?? expect.fail(`golden.safetensors has no ${name}`);

describe.each(backends)('the tiny checkpoint equals transformers, on %s', (backend) => {
  let model: Blip2;
  let pixels: Tensor4D;
  let two: Tensor4D;

  beforeAll(async () => {
    await useBackend(backend);
    model = await loadFolder(tiny);
    pixels = asTensor(of('pixel_values'));
    two = asTensor(of('pixel_values'), 2);
  });
  afterAll(() => dispose([model.params, pixels, two]));

  it('image features and projected queries', async () => {
    const features = imageFeatures(model, pixels);
    const queries = queryEmbeds(model, features);
    expect(features.shape).toEqual(of('image_features').shape);
    expect(relativeError(await features.data(), of('image_features').values)).toBeLessThan(5e-6);
    expect(relativeError(await queries.data(), of('query_embeds').values)).toBeLessThan(5e-6);
  });

  it.each(['right', 'left', 'left_plain'] as const)('logits and loss, padding %s', async (name) => {
    const tokens = batch(golden.cases[name]);
    const { logits } = forward(model, { pixel_values: two }, tokens);
    expectClose(await logits.data(), of(`${name}.logits`).values, tokens.attention_mask);
    const [value] = await loss(model, { pixel_values: two }, tokens).data();
    expect(relativeError([value], [golden.cases[name].loss!])).toBeLessThan(5e-6);
  });

  it('text alone', async () => {
    const { logits } = forward(model, undefined, batch(golden.cases.text));
    expect(relativeError(await logits.data(), of('text.logits').values)).toBeLessThan(5e-6);
  });

  it('an image given at any stage', async () => {
    const tokens = batch(golden.cases.right);
    const image_features = imageFeatures(model, two);
    const inputs = [
      { pixel_values: two },
      { image_features },
      { query_embeds: queryEmbeds(model, image_features) },
    ];
    const values = await Promise.all(
      inputs.map(async (image) => (await loss(model, image, tokens).data())[0]),
    );
    expect(values).toEqual([values[0], values[0], values[0]]);
  });

  it('gradients of the Q-Former, the queries and the projection', async () => {
    const trains = [...flatten(model.params).keys()].filter((name) =>
      /^(qformer|language_projection|query_tokens)/.test(name),
    );
    const errors = await gradientErrors(model, 'right', trains);
    expect(errors.length).toBe(trains.length);
    expect(Math.max(...errors)).toBeLessThan(1e-4);
  });

  describe('with an adapter written by PEFT', () => {
    let adapted: Blip2;
    beforeAll(async () => {
      const adapter = await loadAdapter(`${fixtures}tiny-adapter`);
      adapted = { ...model, params: applyAdapter(model.params, adapter) };
    });

    it('logits and loss', async () => {
      const tokens = batch(golden.cases.adapter);
      const { logits } = forward(adapted, { pixel_values: two }, tokens);
      expectClose(await logits.data(), of('adapter.logits').values, tokens.attention_mask);
      const [value] = await loss(adapted, { pixel_values: two }, tokens).data();
      expect(relativeError([value], [golden.cases.adapter.loss!])).toBeLessThan(5e-6);
    });

    it('gradients of the adapter', async () => {
      const names = [...flatten(adapted.params).keys()].filter((name) => name.includes('lora'));
      const errors = await gradientErrors(adapted, 'adapter', names);
      expect(errors.length).toBe(16);
      expect(Math.max(...errors)).toBeLessThan(1e-4);
    });

    it.each(golden.generate.filter(({ name }) => name.startsWith('adapter ')))(
      'generates: $name',
      async (given) => {
        expect(await generate(adapted, { pixel_values: pixels }, batch(given.tokens), given.options)).toEqual(
          given.ids,
        );
      },
    );
  });

  it.each(golden.generate.filter(({ name }) => !name.startsWith('adapter ')))(
    'generates: $name',
    async (given) => {
      expect(await generate(model, { pixel_values: pixels }, batch(given.tokens), given.options)).toEqual(
        given.ids,
      );
    },
  );

  it('frees all tensors after generating', async () => {
    const { numTensors } = memory();
    await generate(model, { pixel_values: pixels }, imagePrompt(model.config, 3), { max_new_tokens: 6 });
    await generate(model, { pixel_values: pixels }, imagePrompt(model.config, 3), {
      max_new_tokens: 6,
      num_beams: 3,
    });
    expect(memory().numTensors).toBe(numTensors);
  });
});

/** Outputs at padding are meaningless; only those of real tokens are compared. */
function expectClose(actual: ArrayLike<number>, expected: Float32Array, mask: Int32Array): void {
  const V = expected.length / mask.length;
  const real = (values: ArrayLike<number>) =>
    Array.from(values).filter((_, i) => mask[Math.floor(i / V)] === 1);
  expect(relativeError(real(actual), real(expected))).toBeLessThan(5e-6);
}

/** One error per golden gradient of `names`. The true gradient of keys' biases is zero: errors are relative to at least 1e-3. */
async function gradientErrors(model: Blip2, name: 'right' | 'adapter', names: string[]): Promise<number[]> {
  const params = flatten(model.params);
  const wanted = names.map((leaf) => of(`${name}.grad.${leaf.replace('.lora.', '.')}`).values);
  const image = { pixel_values: asTensor<Tensor4D>(of('pixel_values'), 2) };
  const leaves = names.map((leaf) => params.get(leaf)!);
  const { grads } = valueAndGrads(() => loss(model, image, batch(golden.cases[name])), leaves);
  const values = await Promise.all(grads.map((grad) => grad.data()));
  return values.map((actual, i) => {
    const size = wanted[i].reduce((max, x) => Math.max(max, Math.abs(x)), 1e-3);
    return wanted[i].reduce((max, x, j) => Math.max(max, Math.abs(actual[j] - x)), 0) / size;
  });
}
