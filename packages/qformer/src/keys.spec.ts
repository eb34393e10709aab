/** With a dropout key, every random operation of a forward pass has a random stream of its own. */
import { rngKey } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import type * as Nn from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import { expect, it, vi } from 'vitest';
import { readGolden, toTensor, weightTree } from '@blip2/golden';
import type * as Golden from '@blip2/golden';
import type { KeyTrace } from '@blip2/golden';
import { parseQFormerConfig, queryImages } from './index';
import type { QFormerModel } from './index';

const trace = vi.hoisted((): KeyTrace => ({ keys: [], withoutKey: [] }));
vi.mock('@blip2/nn', async (original) => {
  const { traceKeys } = await vi.importActual<typeof Golden>('@blip2/golden');
  return traceKeys(await original<typeof Nn>(), trace);
});

it('gives each linear map, attention and dropout its own key', async () => {
  await useBackend('cpu');
  const golden = await readGolden(import.meta.url, 'qformer-every-second-layer');
  const [queries, image] = ['query_tokens', 'image_features'].map((n) => toTensor<Tensor3D>(golden, n));
  const p = weightTree<QFormerModel>(golden);
  queryImages(p, queries, image, parseQFormerConfig(golden.config), { dropout: rngKey(7) });
  const attention = 4 + 1 + 1; // query, key, value, dense; probabilities; output
  const feedForward = 2 + 1;
  expect(trace.keys).toHaveLength(1 + 5 * attention + 3 * feedForward);
  expect(new Set(trace.keys).size).toBe(trace.keys.length);
  expect(trace.withoutKey).toEqual([]);
});
