import type { OptModel } from '@blip2/opt-decoder';
import { beforeAll, describe, expect, it } from 'vitest';
import { memory, slice, tensor } from '@blip2/nn';
import type { Tensor1D, Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { asTensor, batch, golden, goldenFloats, tiny } from '../spec/golden';
import { generate, imagePrompt, ModelError, nextTokenProbabilities, streamTokens } from './index';
import type { Blip2, GenerateOptions, TokenBatch } from './index';
import { loadFolder } from './node';

/** A prompt of `length` positions for two images of the tiny model: four of them the image's, the rest text. */
function promptOf(length: number): TokenBatch {
  const row = Array.from({ length }, (_, i): number => (i < 4 ? 58 : 5));
  return batch({ shape: [2, length], input_ids: [...row, ...row], attention_mask: row.concat(row).fill(1) });
}

describe('generate', () => {
  let model: Blip2;
  let image: { pixel_values: Tensor4D };
  beforeAll(async () => {
    await useBackend('cpu');
    model = await loadFolder(tiny);
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, 2) };
  });

  it('reaches the last position of the model: 5 prompt tokens and 60 new ones in 64 positions', async () => {
    const o = { max_new_tokens: 60, min_new_tokens: 60 };
    const texts = await generate(model, image, imagePrompt(model.config, 2), o);
    expect(texts.map((ids) => ids.length)).toEqual([60, 60]);
    const beams = await generate(model, image, imagePrompt(model.config, 2), { ...o, num_beams: 2 });
    expect(beams.map((ids) => ids.length)).toEqual([60, 60]);
  });

  it('stops at eos_token_id and returns the ids before it', async () => {
    const prompt = imagePrompt(model.config, 2);
    const texts = await generate(model, image, prompt, { max_new_tokens: 10, min_new_tokens: 10 });
    const eos_token_id = texts[0][3];
    const cut = (ids: number[]) =>
      ids.includes(eos_token_id) ? ids.slice(0, ids.indexOf(eos_token_id)) : ids;
    const again = await generate(model, image, prompt, { max_new_tokens: 10, eos_token_id });
    expect(again[0]).toEqual(cut(texts[0]));
  });

  it('early_stopping ends a search that would otherwise continue for a better text', async () => {
    const search = (early_stopping: boolean) =>
      generate(model, image, imagePrompt(model.config, 2), {
        num_beams: 2,
        early_stopping,
        eos_token_id: 14,
        max_new_tokens: 14,
      });
    const [early, late] = [await search(true), await search(false)];
    expect(early[0]).toEqual(late[0]); // two texts were finished and none could become better
    expect(early[1].length).toBeLessThan(late[1].length);
  });

  it('rejects scores that are NaN', async () => {
    const broken = await loadFolder(tiny);
    const norm = (broken.params.language_model as OptModel).model.decoder.final_layer_norm!;
    norm.bias = tensor<Tensor1D>(new Float32Array(norm.bias.size).fill(NaN), [norm.bias.size]);
    for (const num_beams of [1, 2])
      await expect(generate(broken, image, imagePrompt(model.config, 2), { num_beams })).rejects.toThrow(
        /generate: the scores of row 0 are NaN/,
      );
  });

  describe('sampling', () => {
    const sampled = { do_sample: true, temperature: 1.5, max_new_tokens: 6 };

    it('draws the first token with its probability (chi-square)', async () => {
      const n = 4000;
      const one = { pixel_values: asTensor<Tensor4D>((await goldenFloats()).get('pixel_values')!, 1) };
      const prompt = imagePrompt(model.config, 1);
      const o = {
        do_sample: true,
        temperature: 3,
        top_k: 12,
        top_p: 0.95,
        max_new_tokens: 1,
        min_new_tokens: 1,
      };
      const [probs] = await nextTokenProbabilities(model, one, prompt, o);
      const texts = await generate(model, one, prompt, { ...o, num_return_sequences: n, seed: 11 });
      const counts = new Float64Array(probs.length);
      for (const [id] of texts) counts[id]++;
      const possible = [...probs.keys()].filter((id) => probs[id] > 0);
      expect(counts.reduce((a, b) => a + b, 0)).toBe(n);
      expect(possible.reduce((sum, id) => sum + counts[id], 0)).toBe(n); // nothing else was drawn
      expect(possible.length).toBeGreaterThan(5);
      const statistic = possible.reduce(
        (sum, id) => sum + (counts[id] - n * probs[id]) ** 2 / (n * probs[id]),
        0,
      );
      expect(statistic).toBeLessThan(31.3); // p = 0.001 at 11 degrees of freedom, the most there can be
    });

    it('draws the same texts for a seed in any batch, and others for other seeds and sequences', async () => {
      const prompt = imagePrompt(model.config, 2);
      const both = await generate(model, image, prompt, { ...sampled, seed: 5, num_return_sequences: 3 });
      expect(both.length).toBe(6);
      expect(await generate(model, image, prompt, { ...sampled, seed: 5, num_return_sequences: 3 })).toEqual(
        both,
      );
      expect(
        await generate(model, image, prompt, { ...sampled, seed: 6, num_return_sequences: 3 }),
      ).not.toEqual(both);
      expect(new Set(both.slice(0, 3).map(String)).size).toBeGreaterThan(1);
      const { pixel_values } = image;
      const second = { pixel_values: slice(pixel_values, [1, 0, 0, 0], [1, -1, -1, -1]) };
      const alone = { ...sampled, seed: 5, num_return_sequences: 3, first_row: 1 };
      expect(await generate(model, second, imagePrompt(model.config, 1), alone)).toEqual(both.slice(3));
    });
  });

  describe('streamTokens', () => {
    it('yields what generate returns, token by token', async () => {
      const prompt = imagePrompt(model.config, 2);
      const texts: number[][] = [[], []];
      for await (const { row, id } of streamTokens(model, image, prompt, { max_new_tokens: 8 }))
        texts[row].push(id);
      expect(texts).toEqual(await generate(model, image, prompt, { max_new_tokens: 8 }));
      expect(Math.max(...texts.map((ids) => ids.length))).toBeGreaterThan(3);
    });

    it('frees its tensors when the loop is left early, and rejects beam search', async () => {
      const prompt = imagePrompt(model.config, 2);
      const { numTensors } = memory();
      for await (const token of streamTokens(model, image, prompt)) if (token.row === 1) break;
      expect(memory().numTensors).toBe(numTensors);
      await expect(streamTokens(model, image, prompt, { num_beams: 2 }).next()).rejects.toThrow(
        /beam search cannot stream/,
      );
    });
  });

  it.each<[string, RegExp, GenerateOptions, TokenBatch?]>([
    [
      'max_length',
      /max_length: it would count image tokens and prompt; use max_new_tokens/,
      { max_length: 20 } as object,
    ],
    ['min_length', /min_length: .*; use min_new_tokens/, { min_length: 3 } as object],
    ['an unknown option', /num_beam: there is no such option/, { num_beam: 2 } as object],
    [
      'several greedy texts',
      /num_return_sequences 2: greedy search finds one text/,
      { num_return_sequences: 2 },
    ],
    [
      'more texts than beams',
      /num_return_sequences 4 exceeds num_beams 3/,
      { num_return_sequences: 4, num_beams: 3 },
    ],
    [
      'sampling with beams',
      /do_sample with num_beams above 1 is not supported/,
      { do_sample: true, num_beams: 2 },
    ],
    ['temperature 0', /temperature: expected a number above 0 \(for greedy search/, { temperature: 0 }],
    ['top_p above 1', /top_p: expected a number in \[0, 1\], found 1.5/, { top_p: 1.5 }],
    ['stop strings without a tokenizer', /stop_strings needs tokenizer/, { stop_strings: ['.'] }],
    [
      'early_stopping "always"',
      /early_stopping: expected true, false or "never", found "always"/,
      { early_stopping: 'always' as never },
    ],
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
    [
      'a minimum above the default length near the last position',
      /min_new_tokens 5 exceeds max_new_tokens 3/,
      { min_new_tokens: 5 },
      promptOf(61),
    ],
    [
      'a prompt that fills all positions, without max_new_tokens',
      /a prompt of 64 tokens leaves no room for new ones in the model's 64 positions/,
      {},
      promptOf(64),
    ],
    ['no beams', /num_beams: expected a whole number of at least 1, found 0/, { num_beams: 0 }],
    ['more beams than tokens', /num_beams: expected at most 32, found 33/, { num_beams: 33 }],
    ['a minimum above the maximum', /min_new_tokens 21 exceeds max_new_tokens 20/, { min_new_tokens: 21 }],
    [
      'two bad options at once',
      /max_new_tokens: .* found 0\.5; repetition_penalty: .* found -1/,
      { max_new_tokens: 0.5, repetition_penalty: -1 },
    ],
  ])('rejects %s', async (_name, message, options, tokens = imagePrompt(model.config, 2)) => {
    const attempt = generate(model, image, tokens, options);
    await expect(attempt).rejects.toThrow(ModelError);
    await expect(attempt).rejects.toThrow(message);
  });
});
