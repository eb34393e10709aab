import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { dispose } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { leafValues, tiny } from '../spec/golden';
import { blip2Weights, imagePrompt, initModel, forward, parseConfig } from './index';
import { zeros } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';

const cfg = parseConfig(JSON.parse(readFileSync(`${tiny}/config.json`, 'utf8')));

describe('initModel', () => {
  beforeAll(() => useBackend('cpu'));

  it('matrices and queries are normal(0, 0.02), norm weights 1, biases 0', async () => {
    const model = initModel(cfg, 1);
    const all = await leafValues(model.params);
    expect([...all.keys()].sort()).toEqual(
      blip2Weights(cfg)
        .map(([name]) => name)
        .sort(),
    );
    for (const [name, x] of all) {
      const norm = /norm\d?\.weight$/i.test(name);
      if (name.endsWith('.bias')) expect(new Set(x), name).toEqual(new Set([0]));
      else if (norm) expect(new Set(x), name).toEqual(new Set([1]));
      else {
        const mean = x.reduce((a, b) => a + b, 0) / x.length;
        const std = Math.sqrt(x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length);
        const error = 4 / Math.sqrt(2 * x.length); // four standard errors
        expect(Math.abs(std / 0.02 - 1), `${name} std ${std}`).toBeLessThan(error);
        expect(Math.abs(mean / 0.02), `${name} mean ${mean}`).toBeLessThan(error * Math.SQRT2);
      }
    }
    dispose(model.params);
  });

  it('is equal for equal seeds, and differs between seeds and between tensors of one shape', async () => {
    const [a, b, c] = await Promise.all(
      [initModel(cfg, 7), initModel(cfg, 7), initModel(cfg, 8)].map(({ params }) => leafValues(params)),
    );
    expect(a).toEqual(b);
    expect(a.get('query_tokens')).not.toEqual(c.get('query_tokens'));
    const [k, v] = ['k_proj', 'v_proj'].map(
      (name) => `language_model.model.decoder.layers.0.self_attn.${name}.weight`,
    );
    expect(a.get(k)).not.toEqual(a.get(v));
  });

  it('the model runs, with a loss near that of a uniform guess', async () => {
    const model = initModel(cfg, 1);
    const image = { pixel_values: zeros<Tensor4D>([1, 3, 32, 32]) };
    const logits = await forward(model, image, imagePrompt(cfg, 1)).logits.data();
    expect(Math.max(...logits.map(Math.abs))).toBeLessThan(1);
  });
});
