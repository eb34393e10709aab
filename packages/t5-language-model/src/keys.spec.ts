/** With a dropout key, every random operation of a forward pass has a random stream of its own. */
import { rngKey } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import type * as Nn from '@blip2/nn';
import { expect, it, vi } from 'vitest';
import { readGolden, get, weightTree } from '@blip2/golden';
import type * as Golden from '@blip2/golden';
import type { KeyTrace } from '@blip2/golden';
import { embedTokens, t5 } from './index';
import type { T5Model } from './index';

const trace = vi.hoisted((): KeyTrace => ({ keys: [], withoutKey: [] }));
vi.mock('@blip2/nn', async (original) => {
  const { traceKeys } = await vi.importActual<typeof Golden>('@blip2/golden');
  return traceKeys(await original<typeof Nn>(), trace);
});

it('gives each linear map, attention and dropout its own key', async () => {
  await useBackend('cpu');
  const golden = await readGolden(import.meta.url, 't5-gated');
  const p = weightTree<T5Model>(golden);
  const ints = (name: string) => Int32Array.from(get(golden, name).values);
  const x = embedTokens(p, ints('right.input_ids'), [2, 7]);
  const rows = {
    attention_mask: ints('right.attention_mask'),
    labels: ints('labels'),
    shape: [2, 7] as [number, number],
  };
  t5.logits(p, t5.parse(golden.config, 'config'), x, rows, { dropout: rngKey(7) });
  const attention = 4 + 1 + 1; // projections, probabilities, the branch
  const feedForward = 3 + 1 + 1; // projections, inner, the branch
  const stack = 2; // embeddings, result
  const [encoder, decoder] = [2 * (attention + feedForward), 3 * (2 * attention + feedForward)];
  expect(trace.keys).toHaveLength(encoder + decoder + 2 * stack);
  expect(new Set(trace.keys).size).toBe(trace.keys.length);
  expect(trace.withoutKey).toEqual([]);
});
