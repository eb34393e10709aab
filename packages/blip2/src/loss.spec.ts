import { readFileSync } from 'node:fs';
import type { OptModel } from '@blip2/opt-decoder';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  replaceLeaves,
  rngKey,
  slice,
  tensor,
  tile,
  trainableLeaves,
  valueAndGrads,
  variable,
} from '@blip2/nn';
import type { Tensor, Tensor2D, Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { asTensor, batch, golden, goldenFloats, tiny } from '../spec/golden';
import { forward, loss, queryEmbeds, imageFeatures } from './index';
import type { Blip2, Blip2Options, TokenBatch } from './index';
import { loadFolder } from './node';

const right = () => batch(golden.cases.right);
const value = async (x: Tensor) => (await x.data())[0];

describe('loss', () => {
  let model: Blip2;
  let image: { pixel_values: Tensor4D };
  beforeAll(async () => {
    await useBackend('cpu');
    model = await loadFolder(tiny);
    image = { pixel_values: asTensor((await goldenFloats()).get('pixel_values')!, 2) };
  });

  /** Row b of the batch, alone. */
  const only = (tokens: TokenBatch, b: number): TokenBatch => {
    const [, T] = tokens.shape;
    const cut = (x: Int32Array) => x.slice(b * T, (b + 1) * T);
    return {
      shape: [1, T],
      input_ids: cut(tokens.input_ids),
      attention_mask: cut(tokens.attention_mask),
      labels: cut(tokens.labels!),
    };
  };

  it('is the mean over labelled tokens, not over rows', async () => {
    const tokens = right();
    const query_embeds = queryEmbeds(model, imageFeatures(model, image.pixel_values));
    const rows = [0, 1].map((b) => only(tokens, b));
    const counts = rows.map(({ labels }) => labels!.filter((l) => l >= 0).length);
    const each = await Promise.all(
      rows.map((row, b) =>
        value(loss(model, { query_embeds: slice(query_embeds, [b, 0, 0], [1, -1, -1]) }, row)),
      ),
    );
    expect(counts[0]).not.toBe(counts[1]);
    const mean = (each[0] * counts[0] + each[1] * counts[1]) / (counts[0] + counts[1]);
    expect(await value(loss(model, image, tokens))).toBeCloseTo(mean, 5);
  });

  it('ignores ids of padding and labels of the first position', async () => {
    const tokens = right();
    const before = await value(loss(model, image, tokens));
    tokens.input_ids = tokens.input_ids.map((id, i) => (tokens.attention_mask[i] === 0 ? 7 : id));
    tokens.labels![0] = 5;
    expect(await value(loss(model, image, tokens))).toBe(before);
  });

  it('has the same gradients with checkpointing', async () => {
    const trains = (name: string) =>
      /^(qformer|query_tokens|language_projection|language_model.*[qv]_proj)/.test(name);
    const trained: Blip2 = {
      ...model,
      params: replaceLeaves(model.params, (name, t) => (trains(name) ? variable(t, name) : t)),
    };
    const leaves = [...trainableLeaves(trained.params).values()];
    const dropout = { qformer: rngKey(1), language_model: rngKey(2) };
    const run = (o: Blip2Options) => valueAndGrads(() => loss(trained, image, right(), o), leaves);
    const [plain, recomputed] = [run({ dropout }), run({ dropout, checkpoint: true })];
    expect(await value(recomputed.value)).toBe(await value(plain.value));
    for (const [i, grad] of plain.grads.entries()) {
      const [a, b] = [await grad.data(), await recomputed.grads[i].data()];
      a.forEach((x, j) => expect(Math.abs(b[j] - x)).toBeLessThan(1e-6));
    }
  });

  it('label smoothing: loss and gradients as in transformers, also with an adapter on the head', async () => {
    const formula = (logits: number[][], labels: number[], epsilon: number) => {
      const rows = labels.flatMap((label, i) => (label < 0 ? [] : [{ row: logits[i], label }]));
      const each = rows.map(({ row, label }) => {
        const lse = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
        const mean = row.reduce((sum, x) => sum + x, 0) / row.length;
        return lse - (1 - epsilon) * row[label] - epsilon * mean;
      });
      return each.reduce((a, b) => a + b, 0) / each.length;
    };
    const smoothing = JSON.parse(
      readFileSync(new URL('../fixtures/smoothing.json', import.meta.url), 'utf8'),
    ) as { logits: number[][]; labels: number[]; cases: { epsilon: number; loss: number }[] };
    for (const { epsilon, loss } of smoothing.cases)
      expect(formula(smoothing.logits, smoothing.labels, epsilon)).toBeCloseTo(loss, 7); // it sums over the vocabulary in float32

    const { weight } = (model.params.language_model as OptModel).model.decoder.embed_tokens;
    const [V, D] = weight.shape;
    const wave = (rows: number, cols: number) =>
      tensor<Tensor2D>(
        Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i * 1.7)),
        [rows, cols],
      );
    const lora_B = variable(wave(V, 2));
    const lora = { lora_A: { weight: wave(2, D) }, lora_B: { weight: lora_B }, scaling: 0.5, dropout: 0 };
    const language_model = { ...model.params.language_model, lm_head: { weight, lora } };
    const adapted = { ...model, params: { ...model.params, language_model } } as unknown as Blip2;
    for (const m of [model, adapted]) {
      const tokens = right();
      const [B, T] = tokens.shape;
      const { logits } = forward(m, image, tokens);
      const values = (await logits.data()) as Float32Array;
      const at = Array.from({ length: B * T }, (_, i) => i).filter((i) => (i + 1) % T !== 0);
      const rows = at.map((i) => [...values.subarray(i * V, (i + 1) * V)]);
      const labels = at.map((i) => tokens.labels![i + 1]);
      for (const label_smoothing of [0.1, 0.5])
        expect(await value(loss(m, image, tokens, { label_smoothing }))).toBeCloseTo(
          formula(rows, labels, label_smoothing),
          5,
        );
    }
    const smoothed = () => loss(adapted, image, right(), { label_smoothing: 0.3 });
    const { grads } = valueAndGrads(smoothed, [lora_B]);
    const at = 5;
    const moved = async (by: number) => {
      const data = Float32Array.from(await lora_B.data());
      data[at] += by;
      lora_B.assign(tensor(data, [V, 2]));
      return value(smoothed());
    };
    const [above, below] = [await moved(0.02), await moved(-0.04)];
    expect(Math.abs((await grads[0].data())[at])).toBeGreaterThan(1e-4);
    expect((await grads[0].data())[at]).toBeCloseTo((above - below) / 0.04, 4);
  });

  it('applies dropout only to the parts with a key, the same for the same key', async () => {
    const run = (dropout: Blip2Options['dropout']) => value(loss(model, image, right(), { dropout }));
    const evaluation = await run(undefined);
    expect(await run({ vision_model: rngKey(1) })).toBe(evaluation); // its dropout is 0 in the config
    expect(await run({ qformer: rngKey(1) })).not.toBe(evaluation);
    expect(await run({ language_model: rngKey(1) })).not.toBe(evaluation);
    expect(await run({ qformer: rngKey(1) })).toBe(await run({ qformer: rngKey(1) }));
    expect(await run({ qformer: rngKey(1) })).not.toBe(await run({ qformer: rngKey(2) }));
  });

  it('names intermediates under their part', () => {
    const names: string[] = [];
    forward(model, image, right(), { tap: (name) => names.push(name) });
    for (const part of ['vision_model', 'qformer', 'language_model'])
      expect(names.filter((name) => name.startsWith(`${part}.hidden_states.`)).length, part).toBeGreaterThan(
        2,
      );
  });

  const withText = (change: object): Blip2 => ({
    ...model,
    config: { ...model.config, text_config: { ...model.config.text_config, ...change } },
  });

  it.each<[string, RegExp, () => unknown]>([
    [
      'no labels',
      /labels: expected \[2, 40\] as input_ids, found no values/,
      () => loss(model, image, { ...right(), labels: undefined }),
    ],
    [
      'nothing labelled',
      /none of the 2 rows has a labelled token/,
      () => loss(model, image, { ...right(), labels: new Int32Array(80).fill(-100) }),
    ],
    [
      'too few image tokens',
      /\(id 58\) per row: expected 4 \(num_query_tokens\); row 1 has 3/,
      () => {
        const tokens = right();
        tokens.input_ids[40] = 7;
        return loss(model, image, tokens);
      },
    ],
    [
      'image tokens without an image',
      /expected none, because there is no image; row 0 has 4, row 1 has 4/,
      () => loss(model, undefined, right()),
    ],
    [
      'one image for two rows',
      /expected one image for each of the 2 rows of input_ids, found 1 images/,
      () => loss(model, { pixel_values: slice(image.pixel_values, [0, 0, 0, 0], [1, -1, -1, -1]) }, right()),
    ],
    [
      'ids that do not fit the shape',
      /input_ids: expected \[2, 41\].*found 80/,
      () => loss(model, image, { ...right(), labels: new Int32Array(82), shape: [2, 41] }),
    ],
    [
      'an old checkpoint',
      /no image_token_index/,
      () => loss({ ...model, config: { ...model.config, image_token_index: undefined } }, image, right()),
    ],
    [
      'narrow token embeddings',
      /word_embed_proj_dim \(12\) must equal hidden_size \(24\) for image input/,
      () => loss(withText({ word_embed_proj_dim: 12 }), image, right()),
    ],
    [
      'queries of another size',
      /query_embeds: expected \[B, 4, 24\], found \[2,4,16\]/,
      () => loss(model, { query_embeds: tile(model.params.query_tokens, [2, 1, 1]) }, right()),
    ],
  ])('refuses %s', (_name, message, act) => {
    expect(act).toThrow(message);
  });
});
