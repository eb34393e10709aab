import { mul, sum, trainableLeaves, valueAndGrads } from '@blip2/nn';
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
import { bucketOf, decode, embedTokens, encode, parseT5Config, t5, t5Weights } from './index';
import type { T5Config, T5Model } from './index';

const FORWARD = 1e-5;
const BACKWARD = 1e-4;
const backends = await availableBackends();
const cases = ['t5-gated', 't5-blip2', 't5-tied'];
const [B, T] = [2, 7];

const ints = (golden: Golden, name: string) => Int32Array.from(get(golden, name).values);

async function setUp(name: string, side: string, trains = false) {
  const golden = await readGolden(import.meta.url, name);
  const cfg = t5.parse(golden.config, 'config');
  const p = weightTree<T5Model>(golden, () => trains);
  const attention_mask = ints(golden, `${side}.attention_mask`);
  const labels = ints(golden, 'labels');
  const ids = ints(golden, `${side}.input_ids`);
  const rows = { attention_mask, labels, shape: [B, T] as [number, number] };
  const logits = (o: StageOptions = {}) => t5.logits(p, cfg, embedTokens(p, ids, [B, T]), rows, o);
  /** Whether element i of a [B, T, width] tensor is of a token. */
  const counts = (width: number) => (i: number) => attention_mask[Math.floor(i / width)] === 1;
  return { golden, cfg, p, ids, rows, logits, counts };
}

describe.each(backends)('T5 on %s', (backend) => {
  beforeAll(async () => void (await useBackend(backend, { precision: 'float32' })));

  describe.each(cases)('%s', (name) => {
    it.each(['right', 'left', 'inside'])(
      'equals transformers in every hidden state and the logits, padded on the %s',
      async (side) => {
        const { golden, logits, counts } = await setUp(name, side);
        const states = new Map<string, Tensor>();
        const found = logits({ tap: (state, x) => states.set(state, x) });
        const all = namesUnder(golden, `${side}.`).filter((state) => state.includes('hidden_states'));
        expect([...states.keys()].sort()).toEqual(all.sort());
        for (const [state, x] of states) {
          const keep = state.startsWith('encoder') ? counts(x.shape[2] as number) : undefined;
          expectClose(x, get(golden, `${side}.${state}`), FORWARD, { keep });
        }
        expectClose(found, get(golden, `${side}.logits`), FORWARD);
      },
    );

    it.each([false, true])('equals transformers in every gradient (checkpoint %s)', async (checkpoint) => {
      const side = 'right';
      const { golden, p, logits } = await setUp(name, side, true);
      const leaves = trainableLeaves(p);
      const weight = toTensor(golden, `${side}.loss_weight`);
      const { grads } = valueAndGrads(
        () => sum<Scalar>(mul(logits({ checkpoint }), weight)),
        [...leaves.values()],
      );
      expect([...leaves.keys()].sort()).toEqual(namesUnder(golden, `${side}.grads.`).sort());
      [...leaves.keys()].forEach((leaf, i) =>
        expectClose(grads[i], get(golden, `${side}.grads.${leaf}`), BACKWARD, { floor: 0.1 }),
      );
    });
  });

  it('gives a leaf the same gradient when all others are frozen, also with checkpoints', async () => {
    const { golden, cfg } = await setUp('t5-blip2', 'right');
    for (const leaf of [
      'decoder.block.1.layer.1.EncDecAttention.k.weight',
      'decoder.block.2.layer.0.SelfAttention.v.weight',
      'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
    ])
      for (const checkpoint of [false, true]) {
        const p = weightTree<T5Model>(golden, (name) => name === leaf);
        const { ids, rows } = await setUp('t5-blip2', 'right');
        const weight = toTensor(golden, 'right.loss_weight');
        const logits = () => t5.logits(p, cfg, embedTokens(p, ids, [B, T]), rows, { checkpoint });
        const { grads } = valueAndGrads(
          () => sum<Scalar>(mul(logits(), weight)),
          [...trainableLeaves(p).values()],
        );
        expectClose(grads[0], get(golden, `right.grads.${leaf}`), BACKWARD, { floor: 0.1 });
      }
  });
});

describe('T5', () => {
  beforeAll(async () => void (await useBackend('cpu')));

  it("puts every distance into transformers' bucket, of any number of buckets and greatest distance", async () => {
    const golden = await readGolden(import.meta.url, 't5-tied');
    const names = namesUnder(golden, 'buckets.');
    expect(names).toHaveLength(12);
    for (const name of names) {
      const [kind, buckets, most] = name.split('.');
      const sizes = {
        relative_attention_num_buckets: Number(buckets),
        relative_attention_max_distance: Number(most),
      };
      const found = Array.from({ length: 601 }, (_, i) => bucketOf(i - 300, kind === 'both', sizes));
      expect(found, name).toEqual([...ints(golden, `buckets.${name}`)]);
    }
  });

  it('with a dropout key, results are random, repeatable and the same with checkpoints', async () => {
    const { logits } = await setUp('t5-gated', 'right');
    expectKeyedDropout((o) => [...logits(o).dataSync()]);
  });

  it('lists the tensors of the checkpoint, with and without a tied head', async () => {
    for (const name of cases) {
      const { golden, cfg } = await setUp(name, 'right');
      const shapes = Object.fromEntries(t5Weights(cfg));
      const found = namesUnder(golden, 'weights.').map((leaf) => [
        leaf,
        get(golden, `weights.${leaf}`).shape,
      ]);
      expect(shapes).toEqual(Object.fromEntries(found));
    }
    const cfg = parseT5Config({ model_type: 't5', num_layers: 1 });
    expect(t5Weights(cfg, 'language_model.')[0]).toEqual(['language_model.shared.weight', [32128, 512]]);
  });

  it('refuses embeddings, masks, labels and models that do not fit', async () => {
    const { p, cfg, ids, rows } = await setUp('t5-gated', 'right');
    const x = embedTokens(p, ids, [B, T]);
    const { attention_mask } = rows;
    expect(() => t5.logits(p, cfg, x, { ...rows, labels: undefined }, {})).toThrow(
      'expected labels, the target rows',
    );
    expect(() => encode(p, x, cfg, { attention_mask: attention_mask.slice(1) })).toThrow(
      'attention_mask [2, 7]',
    );
    expect(() => encode(p, x, cfg, { attention_mask: attention_mask.map((m) => 2 * m) })).toThrow(
      'of 0 and 1, found 2',
    );
    expect(() => encode(p, x, { ...cfg, hidden_size: 8 }, { attention_mask })).toThrow('[B, T, 8] (d_model)');
    const deeper: T5Config = { ...cfg, num_hidden_layers: 5, num_decoder_layers: 6 };
    expect(() => encode(p, x, deeper, { attention_mask })).toThrow('expected 5 blocks (num_layers), found 2');
    expect(() => decode(p, x, x, deeper, { attention_mask })).toThrow(
      '6 blocks (num_decoder_layers), found 3',
    );
    const one = embedTokens(p, ids.slice(0, T), [1, T]) as Tensor3D;
    expect(() => decode(p, one, x, cfg, { attention_mask })).toThrow(
      'expected 2 rows as of the encoder, found 1',
    );
    expect(() => embedTokens(p, Int32Array.of(1, 99), [1, 2])).toThrow('found 99 at row 0, column 1');
    const bare = { ...p, encoder: { ...p.encoder, block: p.encoder.block.slice(1) } };
    const shallow = { ...cfg, num_hidden_layers: 1 };
    expect(() => encode(bare, x, shallow, { attention_mask })).toThrow(
      'relative_attention_bias in block 0, found none',
    );
  });

  it.each([
    [{ model_type: 'opt' }, 'text_config.model_type: expected "t5"'],
    [{ feed_forward_proj: 'gated-silu' }, 'text_config.feed_forward_proj: expected "relu"'],
    [{ dense_act_fn: 'silu' }, 'dense_act_fn: expected "relu" or "gelu" (is_gated_act false), found "silu"'],
    [{ dense_act_fn: 'gelu_new' }, 'dense_act_fn: expected "relu" or "gelu" (is_gated_act false)'],
    [
      { relative_attention_num_buckets: 7 },
      'relative_attention_num_buckets: expected an even number of at least 4',
    ],
    [{ relative_attention_max_distance: 16 }, 'above half of relative_attention_num_buckets (32), found 16'],
    [{ layer_norm_epsilon: 0 }, 'layer_norm_epsilon: expected a number above 0, found 0'],
    [{ eos_token_id: [1, 2] }, 'eos_token_id: expected one token id, found [1,2]'],
    [{ is_encoder_decoder: false }, 'is_encoder_decoder: expected true'],
  ])('refuses the configuration %j', (fields, message) => {
    expect(() => parseT5Config({ model_type: 't5', ...fields })).toThrow(message);
  });

  it('reads the activation and the scale of the head as transformers 5 does', () => {
    const read = (fields: object) => parseT5Config({ model_type: 't5', ...fields });
    const gated = { feed_forward_proj: 'gated-gelu' };
    expect(read({})).toMatchObject({
      dense_act_fn: 'relu',
      is_gated_act: false,
      scale_decoder_outputs: true,
    });
    expect(read(gated)).toMatchObject({ dense_act_fn: 'gelu_new', is_gated_act: true });
    expect(read({ ...gated, dense_act_fn: 'gelu' })).toMatchObject({
      dense_act_fn: 'gelu',
      is_gated_act: true,
    });
    expect(read({ tie_word_embeddings: false }).scale_decoder_outputs).toBe(false);
    expect(read({ tie_word_embeddings: true, scale_decoder_outputs: false })).toMatchObject({
      tie_word_embeddings: true,
      scale_decoder_outputs: false,
    });
    expect(read({ num_layers: 4 })).toMatchObject({ num_hidden_layers: 4, num_decoder_layers: 4 });
    expect(read({ pad_token_id: 3 }).decoder_start_token_id).toBe(3);
  });
});
