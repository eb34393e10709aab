/** Randomness: under a dropout key every random site of a forward pass draws from a stream of its own. */
import { rngKey, useBackend } from '@blip2/nn';
import type * as Nn from '@blip2/nn';
import type { Key, Linear, Tensor3D } from '@blip2/nn';
import { expect, it, vi } from 'vitest';
import { readGolden, toTensor, weightTree } from '../spec/golden';
import { parseQFormerConfig, queryImages } from './index';
import type { QFormerModel } from './index';

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
    dropout: ((x, rate, key) => {
      note(key);
      return nn.dropout(x, rate, key);
    }) as typeof nn.dropout,
  };
});

it('gives each linear map, attention and dropout its own key', async () => {
  await useBackend('cpu');
  const golden = await readGolden('qformer-every-second-layer');
  const [queries, image] = ['query_tokens', 'image_features'].map((n) => toTensor<Tensor3D>(golden, n));
  const p = weightTree<QFormerModel>(golden);
  queryImages(p, queries, image, parseQFormerConfig(golden.config), { dropout: rngKey(7) });
  const attention = 4 + 1 + 1; // query, key, value, dense; probabilities; output
  const feedForward = 2 + 1;
  expect(keys).toHaveLength(1 + 5 * attention + 3 * feedForward);
  expect(new Set(keys).size).toBe(keys.length);
  expect(withoutKey).toEqual([]);
});
