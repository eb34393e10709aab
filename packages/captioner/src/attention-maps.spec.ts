/** Attention maps of the tokens of a text. */
import { generate, imageFeatures, queryEmbeds, textIds } from '@blip2/blip2';
import type { Blip2, TokenBatch } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { loadProcessor, promptBatch } from '@blip2/data-captions';
import { tensor } from '@blip2/nn';
import type { Tensor3D, Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ADAPTER, INSTRUCT, open, PICTURES, TINY, TINY_T5 } from '../spec/testing';
import { attentionMaps, queryAttention, sharesOf } from './attention-maps';
import type { Captioner } from './index';

const LONG = { max_new_tokens: 5, min_new_tokens: 5 };

async function lastOf<T>(steps: AsyncGenerator<void, T, void>): Promise<T> {
  for (;;) {
    const { done, value } = await steps.next();
    if (done) return value;
  }
}

describe.each([
  ['OPT', TINY],
  ['T5', TINY_T5],
])('with %s', (_, dir) => {
  let model: Blip2;
  let tokens: TokenBatch;
  let pixels: Tensor4D;
  let rows: Tensor3D;
  let captioner: Captioner;
  beforeAll(async () => {
    await useBackend('cpu');
    model = await loadFolder(dir);
    const processor = await loadProcessor(dir, textIds(model.config));
    tokens = promptBatch(processor, ['']);
    const { height, width } = processor.imageSize;
    pixels = tensor<Tensor4D>(await processor.pixels(PICTURES[0]), [1, 3, height, width]);
    rows = queryEmbeds(model, imageFeatures(model, pixels));
    captioner = await open({ model: dir, ...(dir === TINY && { adapters: { trained: ADAPTER } }) });
  });
  afterAll(() => captioner.close());

  it('the shares of the queries in a token sum to 1', async () => {
    const [ids] = await generate(model, { query_embeds: rows }, tokens, LONG);
    const shares = await lastOf(sharesOf(model, rows, tokens, ids));
    expect(shares).toHaveLength(5);
    for (const share of shares) {
      expect(share).toHaveLength(model.config.num_query_tokens);
      const sum = share.reduce((all, one) => all + one, 0);
      expect(sum === 0 || Math.abs(sum - 1) < 1e-6).toBe(true);
    }
    expect(shares.flat().some((share) => share > 0)).toBe(true);
  });

  it('a query that is like the mean of all has no share', async () => {
    const [, Q, D] = rows.shape;
    const values = (await rows.data()).slice() as Float32Array;
    // the mean of all rows is the mean of the others when the last one is that
    for (let d = 0; d < D; d++) {
      let sum = 0;
      for (let q = 0; q < Q - 1; q++) sum += values[q * D + d];
      values[(Q - 1) * D + d] = sum / (Q - 1);
    }
    const changed = tensor<Tensor3D>(values, [1, Q, D]);
    const shares = await lastOf(sharesOf(model, changed, tokens, [5, 9]));
    for (const share of shares) expect(share.at(-1)).toBeLessThan(1e-4);
  });

  it('each query spends at most 1 on the patches', async () => {
    const attention = queryAttention(model, pixels);
    const { image_size, patch_size } = model.config.vision_config;
    const [Q, N] = [model.config.num_query_tokens, (image_size / patch_size) ** 2];
    expect(attention.shape).toEqual([1, Q, N]);
    const values = [...(await attention.data())];
    expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
    for (let q = 0; q < Q; q++) {
      const sum = values.slice(q * N, (q + 1) * N).reduce((all, one) => all + one, 0);
      expect(sum).toBeGreaterThan(0);
      expect(sum).toBeLessThan(1);
    }
  });

  it('a captioner gives the maps of its text, streamed or found by beam search, which stays as it is', async () => {
    const plain = await captioner.caption(PICTURES[0], { ...LONG, adapter: 'base' });
    const streamed = captioner.streamCaption(PICTURES[0], { ...LONG, adapter: 'base', attention_map: true });
    const ids: number[] = [];
    for await (const token of streamed) {
      expect(token.attention_map).toBeUndefined();
      ids.push(token.id);
    }
    const made = await streamed.result;
    expect(made.tokens.map(({ attention_map, ...token }) => (void attention_map, token))).toEqual(
      plain.tokens,
    );
    const expected = await lastOf(attentionMaps(model, rows, queryAttention(model, pixels), tokens, ids));
    made.tokens.forEach(({ attention_map }, u) => {
      expect(attention_map).toHaveLength(expected[u].length);
      attention_map!.forEach((value, n) => expect(value).toBeCloseTo(expected[u][n], 5));
    });
    const beams = { ...LONG, num_beams: 2, attention_map: true };
    for (const { attention_map } of (await captioner.caption(PICTURES[1], beams)).tokens)
      expect(Math.max(...attention_map!)).toBeGreaterThan(0);
  });
});

it('a request that is ended while its maps are computed frees its place', async () => {
  await using captioner = await open({ max_batch: 1 });
  const leaving = new AbortController();
  const { signal } = leaving;
  const request = captioner.streamCaption(PICTURES[0], { ...LONG, attention_map: true, signal });
  const seen: string[] = [];
  await expect(async () => {
    for await (const { text } of request) if (seen.push(text) === 5) leaving.abort(new Error('left'));
  }).rejects.toThrow('left');
  expect(seen).toHaveLength(5);
  expect((await captioner.caption(PICTURES[1], LONG)).tokens).toHaveLength(5);
});

it('a Q-Former that reads the question has none', async () => {
  await using captioner = await open({ model: INSTRUCT });
  const { text, tokens } = await captioner.answer(PICTURES[0], 'a', { ...LONG, attention_map: true });
  expect(text).not.toBe('');
  expect(tokens.map(({ attention_map }) => attention_map)).toEqual(tokens.map(() => undefined));
});
