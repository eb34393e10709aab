import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { generate, imageFeatures, nextTokenProbabilities, textIds } from '@blip2/blip2';
import type { Blip2, TokenBatch } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { loadProcessor, promptBatch } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import { memory, tensor } from '@blip2/nn';
import type { Tensor3D, Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { explain } from './explain';
import { looks, mapOf, queryRows, sharesOf } from './look';
import { wordsOf } from './words';

const FIXTURES = fileURLToPath(new URL('../../../blip2/fixtures/', import.meta.url));

describe.each(['tiny', 'tiny-t5'])('the words of %s', (name) => {
  let model: Blip2;
  let processor: Processor;
  let bytes: Uint8Array;
  let tokens: TokenBatch;
  let features: Tensor3D;
  beforeAll(async () => {
    await useBackend('cpu');
    model = await loadFolder(FIXTURES + name);
    processor = await loadProcessor(FIXTURES + name, textIds(model.config));
    bytes = await readFile(`${FIXTURES}images/red.png`);
    tokens = promptBatch(processor, ['']);
    const { height, width } = processor.imageSize;
    features = imageFeatures(model, tensor<Tensor4D>(await processor.pixels(bytes), [1, 3, height, width]));
  });

  it('have the probabilities that generation draws from', async () => {
    const rows = queryRows(model, features);
    const image = { query_embeds: rows };
    const [ids] = await generate(model, image, tokens, { max_new_tokens: 3, min_new_tokens: 3 });
    const { probabilities, shares } = await sharesOf(model, rows, tokens, ids);
    const [first] = await nextTokenProbabilities(model, image, tokens, { top_k: 0 });
    expect(probabilities[0]).toBeCloseTo(first[ids[0]], 5);
    expect(probabilities).toHaveLength(3);
    for (const share of shares) {
      expect(share).toHaveLength(model.config.num_query_tokens);
      const sum = share.reduce((all, one) => all + one, 0);
      expect(sum === 0 || Math.abs(sum - 1) < 1e-6).toBe(true);
    }
    expect(shares.flat().some((share) => share > 0)).toBe(true);
  });

  it('owe nothing to a query that is like the mean of all', async () => {
    const rows = queryRows(model, features);
    const [, Q, D] = rows.shape;
    const values = (await rows.data()).slice() as Float32Array;
    // the mean of all rows is the mean of the others when the last one is that
    for (let d = 0; d < D; d++) {
      let sum = 0;
      for (let q = 0; q < Q - 1; q++) sum += values[q * D + d];
      values[(Q - 1) * D + d] = sum / (Q - 1);
    }
    const changed = tensor<Tensor3D>(values, [1, Q, D]);
    const { shares } = await sharesOf(model, changed, tokens, [5, 9]);
    for (const share of shares) expect(share.at(-1)).toBeLessThan(1e-4);
  });

  it('look at patches: each query spends at most 1 on them', async () => {
    const looking = await looks(model, features);
    const { image_size, patch_size } = model.config.vision_config;
    expect(looking).toHaveLength(model.config.num_query_tokens);
    for (const one of looking) {
      expect(one).toHaveLength((image_size / patch_size) ** 2);
      expect(Math.min(...one)).toBeGreaterThanOrEqual(0);
      expect(one.reduce((sum, value) => sum + value, 0)).toBeLessThan(1);
    }
    expect(Math.max(...mapOf([1, ...looking.slice(1).map(() => 0)], looking))).toBe(1);
  });

  it('are explained without leaving tensors behind', async () => {
    await explain('base', model, processor, { bytes });
    const before = memory().numTensors;
    const { text, words } = await explain('base', model, processor, { bytes });
    expect(memory().numTensors).toBe(before);
    expect(
      words
        .map((word) => word.text)
        .join(' ')
        .replace(/\s/g, ''),
    ).toBe(text.replace(/\s/g, ''));
  });

  it('leave no tensors behind if something fails', async () => {
    const tokenizer = Object.create(processor.tokenizer) as Processor['tokenizer'];
    tokenizer.decode = () => {
      throw new Error('cannot be decoded');
    };
    const before = memory().numTensors;
    const failing = explain('base', model, { ...processor, tokenizer }, { bytes });
    await expect(failing).rejects.toThrow('cannot be decoded');
    expect(memory().numTensors).toBe(before);
  });
});

it('puts tokens together to words', () => {
  const pieces = [' a', ' re', 'd', ' mug', '.'];
  const decode = (ids: readonly number[]) =>
    ids
      .map((id) => pieces[id])
      .join('')
      .trimStart();
  expect(wordsOf([0, 1, 2, 3, 4], decode)).toEqual([
    { text: 'a', tokens: [0] },
    { text: 'red', tokens: [1, 2] },
    { text: 'mug.', tokens: [3, 4] },
  ]);
});
