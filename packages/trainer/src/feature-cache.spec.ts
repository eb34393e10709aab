import { join } from 'node:path';
import { imageFeatures, loadModel, queryEmbeds } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import type { Processor } from '@blip2/data-captions';
import { loadProcessor } from '@blip2/data-captions';
import { dispose, memory, tidy, useBackend } from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import { beforeAll, describe, expect, it } from 'vitest';
import { readImages } from './evaluation';
import { buildFeatureCache, cacheableStage, cacheBytes, cachedInput } from './feature-cache';
import { TINY_MODEL, tinyJob } from './tiny';

let model: Blip2;
let processor: Processor;
let files: string[];

beforeAll(async () => {
  await useBackend('cpu');
  model = await loadModel(TINY_MODEL);
  processor = await loadProcessor(TINY_MODEL);
  const root = await tinyJob();
  files = [0, 1, 2, 3].map((i) => join(root, 'train', `0-${i}.png`));
});

describe('cacheableStage', () => {
  it.each([
    [['language_model.model.decoder.layers.0.self_attn.q_proj.lora.lora_A.weight'], 'query_embeds'],
    [['language_projection.weight'], 'image_features'],
    [['query_tokens'], 'image_features'],
    [['qformer.layernorm.weight', 'language_model.lm_head.weight'], 'image_features'],
    [['vision_model.post_layernorm.weight', 'query_tokens'], undefined],
  ])('is the last stage before what trains: %s', (names, stage) => {
    expect(cacheableStage(names)).toBe(stage);
  });
});

describe('the feature cache', () => {
  it.each(['image_features', 'query_embeds'] as const)(
    'holds %s of each distinct image, as computed afresh',
    async (stage) => {
      const before = memory().numTensors;
      const cache = await buildFeatureCache(model, processor, [...files, files[0]], stage, { batch_size: 3 });
      expect(cache.images.size).toBe(4);
      const held = [...cache.images.values()].reduce((sum, row) => sum + row.byteLength, 0);
      expect(held).toBe(cacheBytes(model.config, stage, 4));
      expect(cache.bytes).toBe(held);

      const order = [files[2], files[0]];
      const given = cachedInput(cache, order) as unknown as Record<string, Tensor>;
      expect(Object.keys(given)).toEqual([stage]);
      const { pixel_values } = await readImages(processor, order.map((image) => ({ image }))); // prettier-ignore
      const fresh = tidy(() => {
        const features = imageFeatures(model, pixel_values);
        return stage === 'image_features' ? features : queryEmbeds(model, features);
      });
      expect(given[stage].shape).toEqual(fresh.shape);
      const [a, b] = [await given[stage].data(), await fresh.data()];
      a.forEach((value, i) => expect(value).toBeCloseTo(b[i], 5));
      expect(a).not.toEqual(a.slice().reverse());
      dispose([given[stage], fresh, pixel_values]);
      expect(memory().numTensors).toBe(before);
    },
  );

  it('names an image it does not have', async () => {
    const cache = await buildFeatureCache(model, processor, files.slice(0, 1), 'query_embeds', {
      batch_size: 2,
    });
    expect(() => cachedInput(cache, [files[1]])).toThrow(/0-1\.png is not among its 1 images/);
  });

  it('stops when it is told to', async () => {
    const o = { batch_size: 1, signal: AbortSignal.abort(new Error('stopped')) };
    await expect(buildFeatureCache(model, processor, files, 'query_embeds', o)).rejects.toThrow('stopped');
  });
});
