/** Randomness: under a dropout key every random site of a forward pass draws from a stream of its own. */
import { rngKey, useBackend } from '@blip2/nn';
import type * as Nn from '@blip2/nn';
import type { Key, Linear, Tensor4D } from '@blip2/nn';
import { expect, it, vi } from 'vitest';
import { readGolden, toTensor, weightTree } from '../spec/golden';
import { encodeImages, parseVisionConfig } from './index';
import type { VisionModel } from './index';

const keys: string[] = [];
const withoutKey: Linear[] = [];
const note = (key: Key | undefined) => key && keys.push(`${key.k0}:${key.k1}`);

vi.mock('@blip2/nn', async (original) => {
  const nn = await original<typeof Nn>();
  return {
    ...nn,
    linear: ((p, x, key) => {
      if (!note(key)) withoutKey.push(p);
      return nn.linear(p, x, key);
    }) as typeof nn.linear,
    attention: ((q, k, v, o) => {
      note(o.dropout?.key);
      return nn.attention(q, k, v, o);
    }) as typeof nn.attention,
  };
});

it('gives each linear map (but the patch embedding) and each attention its own key', async () => {
  await useBackend('cpu');
  const golden = await readGolden('vision');
  const pixels = toTensor<Tensor4D>(golden, 'pixel_values');
  const p = weightTree<VisionModel>(golden);
  encodeImages(p, pixels, parseVisionConfig(golden.config), { dropout: rngKey(7) });
  expect(keys).toHaveLength(2 * 5);
  expect(new Set(keys).size).toBe(keys.length);
  expect(withoutKey.map(({ weight }) => weight.shape)).toEqual([[16, 3 * 4 * 4]]);
});
