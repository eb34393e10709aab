/** With a dropout key, every random operation of a forward pass has a random stream of its own. */
import { rngKey } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import type * as Nn from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { expect, it, vi } from 'vitest';
import { readGolden, toTensor, weightTree } from '@blip2/golden';
import type * as Golden from '@blip2/golden';
import type { KeyTrace } from '@blip2/golden';
import { encodeImages, parseVisionConfig } from './index';
import type { VisionModel } from './index';

const trace = vi.hoisted((): KeyTrace => ({ keys: [], withoutKey: [] }));
vi.mock('@blip2/nn', async (original) => {
  const { traceKeys } = await vi.importActual<typeof Golden>('@blip2/golden');
  return traceKeys(await original<typeof Nn>(), trace);
});

it('gives each linear map (except the patch embedding) and each attention its own key', async () => {
  await useBackend('cpu');
  const golden = await readGolden(import.meta.url, 'vision');
  const pixels = toTensor<Tensor4D>(golden, 'pixel_values');
  const p = weightTree<VisionModel>(golden);
  encodeImages(p, pixels, parseVisionConfig(golden.config), { dropout: rngKey(7) });
  expect(trace.keys).toHaveLength(2 * 5);
  expect(new Set(trace.keys).size).toBe(trace.keys.length);
  expect(trace.withoutKey.map(({ weight }) => weight.shape)).toEqual([[16, 3 * 4 * 4]]);
});
