/** With a dropout key, every random operation of a forward pass has a random stream of its own. */
import { rngKey } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import type * as Nn from '@blip2/nn';
import { expect, it, vi } from 'vitest';
import { readGolden, get, weightTree } from '@blip2/golden';
import type * as Golden from '@blip2/golden';
import type { KeyTrace } from '@blip2/golden';
import { decode, embedTokens, parseOptConfig } from './index';
import type { OptModel } from './index';

const trace = vi.hoisted((): KeyTrace => ({ keys: [], withoutKey: [] }));
vi.mock('@blip2/nn', async (original) => {
  const { traceKeys } = await vi.importActual<typeof Golden>('@blip2/golden');
  return traceKeys(await original<typeof Nn>(), trace);
});

it('gives each linear map of a layer, attention and dropout its own key', async () => {
  await useBackend('cpu');
  const golden = await readGolden(import.meta.url, 'opt-post-norm');
  const p = weightTree<OptModel>(golden);
  const embeds = embedTokens(p, Int32Array.from(get(golden, 'right.input_ids').values), [2, 7]);
  const attention_mask = Int32Array.from(get(golden, 'right.attention_mask').values);
  decode(p, embeds, parseOptConfig(golden.config), { attention_mask, dropout: rngKey(7) });
  expect(trace.keys).toHaveLength(2 * (4 + 1 + 1 + 2 + 1)); // projections, probabilities, out_proj; fc1, fc2, fc2's output
  expect(new Set(trace.keys).size).toBe(trace.keys.length);
  const { project_in, project_out } = p.model.decoder;
  expect(trace.withoutKey).toEqual([project_in, project_out]);
});
