import { beforeAll, describe, expect, it } from 'vitest';
import { tensor, useBackend, type Tensor1D, type Tensor4D } from '@blip2/nn';
import { asTensor, batch, golden, goldenFloats, tiny } from '../spec/golden';
import {
  generate,
  imagePrompt,
  loadModel,
  ModelError,
  type Blip2,
  type GenerateOptions,
  type TokenBatch,
} from './index';

describe('generate', () => {
  let model: Blip2;
  let image: { pixel_values: Tensor4D };
  beforeAll(async () => {
    await useBackend('cpu');
    model = await loadModel(tiny);
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, 2) };
  });

  it('reaches the last position of the model: 5 prompt tokens and 60 new ones in 64 positions', async () => {
    const o = { max_new_tokens: 60, min_new_tokens: 60 };
    const texts = await generate(model, image, imagePrompt(model.config, 2), o);
    expect(texts.map((ids) => ids.length)).toEqual([60, 60]);
    const beams = await generate(model, image, imagePrompt(model.config, 2), { ...o, num_beams: 2 });
    expect(beams.map((ids) => ids.length)).toEqual([60, 60]);
  });

  it('stops on the given end token and returns the ids before it', async () => {
    const prompt = imagePrompt(model.config, 2);
    const texts = await generate(model, image, prompt, { max_new_tokens: 10, min_new_tokens: 10 });
    const eos_token_id = texts[0][3];
    const cut = (ids: number[]) =>
      ids.includes(eos_token_id) ? ids.slice(0, ids.indexOf(eos_token_id)) : ids;
    const again = await generate(model, image, prompt, { max_new_tokens: 10, eos_token_id });
    expect(again[0]).toEqual(cut(texts[0]));
  });

  it('early_stopping ends with num_beams finished texts, at the latest where the default does', async () => {
    const search = (early_stopping: boolean) =>
      generate(model, image, imagePrompt(model.config, 2), {
        num_beams: 3,
        early_stopping,
        max_new_tokens: 14,
      });
    const [early, late] = [await search(true), await search(false)];
    early.forEach((ids, row) => expect(ids.length).toBeLessThanOrEqual(late[row].length));
  });

  it('stops on weights that give no numbers instead of inventing a text', async () => {
    const broken = await loadModel(tiny);
    const norm = broken.params.language_model.model.decoder.final_layer_norm!;
    norm.bias = tensor<Tensor1D>(new Float32Array(norm.bias.size).fill(NaN), [norm.bias.size]);
    for (const num_beams of [1, 2])
      await expect(generate(broken, image, imagePrompt(model.config, 2), { num_beams })).rejects.toThrow(
        /generate: the model's scores of row 0 are not numbers/,
      );
  });

  it.each<[string, RegExp, GenerateOptions, TokenBatch?]>([
    [
      'prompts padded on the right',
      /row 0 of the prompt ends with padding; pad prompts on the left/,
      {},
      batch(golden.cases.right),
    ],
    [
      'too many tokens',
      /a prompt of 5 tokens and 61 new ones exceed the model's 64 positions/,
      { max_new_tokens: 61 },
    ],
    ['no beams', /num_beams: expected a whole number of at least 1, got 0/, { num_beams: 0 }],
    ['more beams than tokens', /num_beams: expected at most 32, got 33/, { num_beams: 33 }],
    ['a minimum above the maximum', /min_new_tokens 21 exceeds max_new_tokens 20/, { min_new_tokens: 21 }],
    [
      'two bad options at once',
      /max_new_tokens: .* got 0\.5; repetition_penalty: .* got -1/,
      { max_new_tokens: 0.5, repetition_penalty: -1 },
    ],
  ])('refuses %s', async (_name, message, options, tokens = imagePrompt(model.config, 2)) => {
    const attempt = generate(model, image, tokens, options);
    await expect(attempt).rejects.toThrow(ModelError);
    await expect(attempt).rejects.toThrow(message);
  });
});
