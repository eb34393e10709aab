/** Every kind of adapter that PEFT writes, in the whole model: logits, losses and gradients equal PEFT's. */
import { fileURLToPath } from 'node:url';
import { dispose, flatten, trainableLeaves, valueAndGrads } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import {
  adapterSet,
  addAdapter,
  addWeightedAdapter,
  applyAdapter,
  deleteAdapter,
  disableAdapters,
  mergeLora,
  setAdapter,
} from '@blip2/peft-lora';
import type { AdapterSet } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { openWeights } from '@blip2/weights/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asTensor, relativeError } from '../spec/golden';
import type { Floats } from '../spec/golden';
import { adapterBase, forward, loss } from './index';
import type { Blip2, Blip2Params } from './index';
import { loadFolder } from './node';

const fixture = (name: string) => fileURLToPath(new URL(`../../peft-lora/fixtures/${name}`, import.meta.url));

async function floats(name: string): Promise<Map<string, Floats>> {
  const reader = await openWeights(fixture(name));
  const found = new Map<string, Floats>();
  for (const { name: key, shape } of reader.entries.values())
    found.set(key, { shape, values: await reader.readFloat32(key) });
  await reader.close();
  return found;
}

const golden = new Map([
  ...(await floats('golden.safetensors')),
  ...(await floats('variants.safetensors')),
  ...(await floats('weighted.safetensors')),
]);
const of = (name: string): Floats => golden.get(name) ?? expect.fail(`the fixtures have no ${name}`);
const ints = (name: string) => Int32Array.from(of(name).values);
const VARIANTS = [...golden.keys()].flatMap((key) => /^(\w+)\.loss$/.exec(key)?.[1] ?? []);

// The fastest backend is enough; nn's suite compares the backends.
const backends = await availableBackends();
const backend = backends.includes('native') ? 'native' : backends.includes('wasm') ? 'wasm' : 'cpu';

describe(`adapters written by PEFT, on ${backend}`, () => {
  let model: Blip2;
  let pixel_values: Tensor4D;
  const batch = {
    input_ids: ints('input_ids'),
    attention_mask: ints('attention_mask'),
    labels: ints('labels'),
    shape: of('input_ids').shape as [number, number],
  };
  beforeAll(async () => {
    await useBackend(backend);
    model = await loadFolder(fixture('base'));
    pixel_values = asTensor(of('pixel_values'));
  });
  afterAll(() => dispose([model.params, pixel_values]));

  async function logitsError(params: Blip2Params, expected: string): Promise<number> {
    const { logits } = forward({ ...model, params }, { pixel_values }, batch);
    const V = model.config.text_config.vocab_size;
    const real = (values: ArrayLike<number>) =>
      Array.from(values).filter((_, i) => batch.attention_mask[Math.floor(i / V)] === 1);
    return relativeError(real(await logits.data()), real(of(expected).values));
  }

  it('the fixtures have every variant', () => expect(VARIANTS.length).toBe(13));

  it.each(VARIANTS)('%s: logits and loss, applied and merged', async (name) => {
    const params = applyAdapter(
      model.params,
      await loadAdapter(fixture(`variants/${name}`)),
      adapterBase(model.config),
    );
    expect(await logitsError(params, `${name}.logits`)).toBeLessThan(5e-6);
    expect(await logitsError(mergeLora(params), `${name}.logits`)).toBeLessThan(5e-6);
    expect(await logitsError(params, 'logits.base')).toBeGreaterThan(1e-2);
    const [value] = await loss({ ...model, params }, { pixel_values }, batch).data();
    expect(relativeError([value], of(`${name}.loss`).values)).toBeLessThan(5e-6);
  });

  it.each(VARIANTS)('%s: trains the tensors that PEFT trains, with its gradients', async (name) => {
    const adapter = await loadAdapter(fixture(`variants/${name}`));
    const params = applyAdapter(model.params, adapter, { trainable: true, ...adapterBase(model.config) });
    const variables = trainableLeaves(params);
    const names = [...variables.keys()].map((leaf) => leaf.replace('.lora.', '.'));
    const prefix = `${name}.grad.`;
    const theirs = [...golden.keys()].filter((key) => key.startsWith(prefix));
    expect(names.map((leaf) => prefix + leaf).sort()).toEqual(theirs.sort());
    const { grads } = valueAndGrads(
      () => loss({ ...model, params }, { pixel_values }, batch),
      [...variables.values()],
    );
    for (const [i, leaf] of names.entries()) {
      const [ours, wanted] = [await grads[i].data(), of(prefix + leaf).values];
      // The true gradient of keys' biases is zero and only noise remains: errors are relative to at least 1e-3.
      const size = wanted.reduce((max, x) => Math.max(max, Math.abs(x)), 1e-3);
      const error = wanted.reduce((max, x, j) => Math.max(max, Math.abs(ours[j] - x)), 0) / size;
      expect(error, leaf).toBeLessThan(1e-4);
    }
  });

  describe('several on one model', () => {
    let set: AdapterSet<Blip2Params>;
    beforeAll(async () => {
      set = adapterSet(model.params);
      for (const name of ['first', 'second'])
        set = addAdapter(set, name, await loadAdapter(fixture(`variants/${name}`)));
    });

    it('one, the other, both, none: as in PEFT', async () => {
      for (const name of ['first', 'second']) {
        set = setAdapter(set, name);
        expect(await logitsError(set.tree, `${name}.logits`)).toBeLessThan(5e-6);
      }
      set = setAdapter(set, ['first', 'second']);
      expect(await logitsError(set.tree, 'both.logits')).toBeLessThan(5e-6);
      set = deleteAdapter(set, 'second');
      expect(set.active).toEqual(['first']);
      expect(await logitsError(set.tree, 'first.logits')).toBeLessThan(5e-6);
      set = addAdapter(set, 'second', await loadAdapter(fixture('variants/second')));
      set = disableAdapters(set);
      expect(flatten(set.tree)).toEqual(flatten(model.params));
      expect(await logitsError(set.tree, 'disabled.logits')).toBeLessThan(5e-6);
    });

    it.each([
      ['linear', { weights: [0.7, 0.4], combination_type: 'linear' }],
      ['linear_negative', { weights: [0.7, -0.4], combination_type: 'linear' }],
      ['cat', { weights: [0.7, -0.4], combination_type: 'cat' }],
      ['svd', { weights: [0.7, 0.4] }],
      ['svd_rank_1', { weights: [0.7, 0.4], combination_type: 'svd', svd_rank: 1 }],
    ] as const)('add_weighted_adapter: %s', async (name, options) => {
      const more = addWeightedAdapter(set, ['first', 'second'], name, options);
      set = setAdapter(more, name);
      expect(await logitsError(set.tree, `${name}.logits`)).toBeLessThan(5e-6);
    });
  });
});
