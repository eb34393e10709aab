import { mul, rngKey, sum, tensor, trainableLeaves, valueAndGrads, variable } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import type { Scalar, StageOptions, Tensor, Tensor3D } from '@blip2/nn';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  expectClose,
  expectKeyedDropout,
  get,
  namesUnder,
  readGolden,
  toTensor,
  weightTree,
} from '@blip2/golden';
import type { Golden } from '@blip2/golden';
import { crossAttentions, parseQFormerConfig, qformerWeights, queryImages } from './index';
import type { QFormerConfig, QFormerModel } from './index';

const FORWARD = 1e-5;
const BACKWARD = 1e-4;
const backends = await availableBackends();
const cases = ['qformer-every-layer', 'qformer-every-second-layer'];

const inputs = (golden: Golden) => ({
  queries: toTensor<Tensor3D>(golden, 'query_tokens'),
  image: toTensor<Tensor3D>(golden, 'image_features'),
});

const config = (golden: Golden) => parseQFormerConfig(golden.config);

describe.each(backends)('queryImages on %s', (backend) => {
  beforeAll(async () => void (await useBackend(backend)));

  describe.each(cases)('%s', (name) => {
    it('equals transformers in every hidden state', async () => {
      const golden = await readGolden(import.meta.url, name);
      const cfg = config(golden);
      const { queries, image } = inputs(golden);
      const states = new Map<string, Tensor>();
      const out = queryImages(weightTree(golden), queries, image, cfg, {
        tap: (state, x) => states.set(state, x),
      });
      expect([...states.keys()]).toEqual(
        Array.from({ length: cfg.num_hidden_layers + 1 }, (_, i) => `hidden_states.${i}`),
      );
      for (const [state, x] of states) expectClose(x, get(golden, state), FORWARD);
      expectClose(out, get(golden, 'last_hidden_state'), FORWARD);
    });

    it('equals transformers in the weights of every cross-attention', async () => {
      const golden = await readGolden(import.meta.url, name);
      const { queries, image } = inputs(golden);
      const found = crossAttentions(weightTree(golden), queries, image, config(golden));
      expect(found).toHaveLength(namesUnder(golden, 'cross_attentions.').length);
      found.forEach((weights, i) => expectClose(weights, get(golden, `cross_attentions.${i}`), FORWARD));
    });

    it.each([false, true])(
      'equals transformers in every gradient, queries and image tokens included (checkpoint %s)',
      async (checkpoint) => {
        const golden = await readGolden(import.meta.url, name);
        const cfg = config(golden);
        const p = weightTree<QFormerModel>(golden, () => true);
        const queries = variable(toTensor(golden, 'query_tokens')) as unknown as Tensor3D;
        const image = toTensor<Tensor3D>(golden, 'image_features');
        const leaves = new Map<string, Tensor>([
          ...trainableLeaves(p),
          ['query_tokens', queries],
          ['image_features', image],
        ]);
        const weight = toTensor(golden, 'loss_weight');
        const loss = () => sum<Scalar>(mul(queryImages(p, queries, image, cfg, { checkpoint }), weight));
        const { grads } = valueAndGrads(loss, [...leaves.values()]);
        expect([...leaves.keys()].sort()).toEqual(namesUnder(golden, 'grads.').sort());
        [...leaves.keys()].forEach((leaf, i) =>
          expectClose(grads[i], get(golden, `grads.${leaf}`), BACKWARD, { floor: 0.1 }),
        );
      },
    );
  });

  it('gives a leaf the same gradient when all others are frozen', async () => {
    const golden = await readGolden(import.meta.url, 'qformer-every-second-layer');
    const name = 'encoder.layer.0.crossattention.attention.key.weight';
    const p = weightTree<QFormerModel>(golden, (leaf) => leaf === name);
    const { queries, image } = inputs(golden);
    const weight = toTensor(golden, 'loss_weight');
    const loss = () =>
      sum<Scalar>(mul(queryImages(p, queries, image, config(golden), { checkpoint: true }), weight));
    const { grads } = valueAndGrads(loss, [...trainableLeaves(p).values()]);
    expect(grads).toHaveLength(1);
    expectClose(grads[0], get(golden, `grads.${name}`), BACKWARD);
  });

  describe('dropout', () => {
    const off = { hidden_dropout_prob: 0, attention_probs_dropout_prob: 0 };
    const setUp = async (rates: Partial<QFormerConfig>) => {
      const golden = await readGolden(import.meta.url, 'qformer-every-second-layer');
      const p = weightTree<QFormerModel>(golden);
      const { queries, image } = inputs(golden);
      const cfg = { ...config(golden), ...off, ...rates };
      return (o: StageOptions) => Array.from(queryImages(p, queries, image, cfg, o).dataSync());
    };

    it.each([{ hidden_dropout_prob: 0.3 }, { attention_probs_dropout_prob: 0.3 }])(
      'of %j acts only with a key, always the same for one key, with or without checkpointing',
      async (rates) => expectKeyedDropout(await setUp(rates)),
    );

    it('of rate 0 changes nothing', async () => {
      const run = await setUp({});
      expect(run({ dropout: rngKey(1) })).toEqual(run({}));
    });

    it('differs between the items of a batch', async () => {
      const golden = await readGolden(import.meta.url, 'qformer-every-second-layer');
      const { values, shape } = get(golden, 'image_features');
      const half = values.slice(0, values.length / 2);
      const twice = tensor<Tensor3D>(Float32Array.from([...half, ...half]), shape);
      const states: Float32Array[] = [];
      queryImages(weightTree(golden), toTensor(golden, 'query_tokens'), twice, config(golden), {
        dropout: rngKey(1),
        tap: (_, x) => states.push(x.dataSync() as Float32Array),
      });
      const [embedded] = states;
      expect(embedded.slice(0, embedded.length / 2)).not.toEqual(embedded.slice(embedded.length / 2));
    });
  });

  it('refuses inputs and layers that do not match the config, with what was expected and found', async () => {
    const golden = await readGolden(import.meta.url, 'qformer-every-second-layer');
    const p = weightTree<QFormerModel>(golden);
    const { queries, image } = inputs(golden);
    const cfg = config(golden);
    expect(() => queryImages(p, queries, queries, cfg)).toThrow(
      'queryImages: expected image_features [B, N, 12] (encoder_hidden_size), found [1,5,16]',
    );
    expect(() => queryImages(p, image, image, cfg)).toThrow(
      'queryImages: expected query_tokens [1, Q, 16] (hidden_size), found [2,7,12]',
    );
    expect(() => queryImages(p, queries, image, { ...cfg, num_hidden_layers: 4 })).toThrow(
      'expected 4 encoder layers (num_hidden_layers), found 3',
    );
    expect(() => queryImages(p, queries, image, { ...cfg, cross_attention_frequency: 1 })).toThrow(
      'expected a crossattention in encoder.layer.1 (cross_attention_frequency 1), found none',
    );
  });
});

describe('qformerWeights', () => {
  it.each(cases)('lists the tensors of %s with their shapes', async (name) => {
    const golden = await readGolden(import.meta.url, name);
    const table = qformerWeights(config(golden), 'weights.');
    const expected = namesUnder(golden, 'weights.').map(
      (n) => `weights.${n} ${get(golden, `weights.${n}`).shape}`,
    );
    expect(table.map(([n, shape]) => `${n} ${shape}`).sort()).toEqual(expected.sort());
  });

  it('has as many parameters as the published Q-Former', () => {
    const table = qformerWeights(parseQFormerConfig({}));
    expect(table.reduce((n, [, shape]) => n + shape.reduce((a, b) => a * b, 1), 0)).toBe(105_137_664);
  });
});

describe('parseQFormerConfig', () => {
  it('has the defaults of Blip2QFormerConfig and ignores other keys', () => {
    expect(parseQFormerConfig({ vocab_size: 30522, position_embedding_type: 'absolute' })).toEqual({
      hidden_size: 768,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      intermediate_size: 3072,
      hidden_act: 'gelu',
      hidden_dropout_prob: 0.1,
      attention_probs_dropout_prob: 0.1,
      layer_norm_eps: 1e-12,
      cross_attention_frequency: 2,
      encoder_hidden_size: 1408,
      use_qformer_text_input: false,
    });
  });

  it('prefers the width of the image tokens passed as an argument to the one in the file', () => {
    expect(parseQFormerConfig({ encoder_hidden_size: 1408 }, 'qformer_config', 192).encoder_hidden_size).toBe(
      192,
    );
  });

  it.each([
    [
      { use_qformer_text_input: 'no' },
      'qformer_config.use_qformer_text_input: expected true or false, found "no"',
    ],
    [{ hidden_act: 'relu' }, 'qformer_config.hidden_act: expected "gelu", found "relu"'],
    [{ hidden_dropout_prob: -1 }, 'qformer_config.hidden_dropout_prob: expected a rate in [0, 1), found -1'],
    [
      { num_attention_heads: 7 },
      'qformer_config.hidden_size: expected a multiple of num_attention_heads (7)',
    ],
    [
      { cross_attention_frequency: 0 },
      'qformer_config.cross_attention_frequency: expected a positive integer',
    ],
    [{ layer_norm_eps: 0 }, 'qformer_config.layer_norm_eps: expected a number above 0, found 0'],
    ['opt', 'qformer_config: expected an object, found "opt"'],
  ])('refuses %j', (json, message) => {
    expect(() => parseQFormerConfig(json)).toThrow(message);
  });
});
