/** Randomness: under a dropout key every random site of a forward pass draws from a stream of its own. */
import { rngKey, useBackend } from '@blip2/nn';
import type * as Nn from '@blip2/nn';
import type { Key, Linear } from '@blip2/nn';
import { expect, it, vi } from 'vitest';
import { readGolden, get, weightTree } from '../spec/golden';
import { decode, embedTokens, parseOptConfig } from './index';
import type { OptModel } from './index';

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

it('gives each linear map of a layer, attention and dropout its own key', async () => {
  await useBackend('cpu');
  const golden = await readGolden('opt-post-norm');
  const p = weightTree<OptModel>(golden);
  const embeds = embedTokens(p, Int32Array.from(get(golden, 'right.input_ids').values), [2, 7]);
  const attention_mask = Int32Array.from(get(golden, 'right.attention_mask').values);
  decode(p, embeds, parseOptConfig(golden.config), { attention_mask, dropout: rngKey(7) });
  expect(keys).toHaveLength(2 * (4 + 1 + 1 + 2 + 1)); // projections, probabilities, out_proj; fc1, fc2, fc2's output
  expect(new Set(keys).size).toBe(keys.length);
  const { project_in, project_out } = p.model.decoder;
  expect(withoutKey).toEqual([project_in, project_out]);
});
