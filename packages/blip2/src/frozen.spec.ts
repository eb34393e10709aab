/** The lower layers of the text model, which nothing trains: computed once and continued, compared with whole passes. */
import { dispose, replaceLeaves, rngKey, tidy, trainableLeaves, valueAndGrads, variable } from '@blip2/nn';
import type { Scalar, Tensor2D, Tensor3D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { random } from '@blip2/nn/conformance';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { relativeError, tiny } from '../spec/golden';
import { frozenDepth, hiddenBelow, isBelow, loss, segmentsOf } from './index';
import type { Blip2, TokenBatch } from './index';
import { loadFolder } from './node';

const [Q, IMAGE, PAD] = [4, 58, 1];

/** Rows of Q image tokens and texts of these tokens, learned from their second token on. */
function rows(texts: number[][], pictures?: number[]): TokenBatch & { labels: Int32Array } {
  const T = Q + Math.max(...texts.map(({ length }) => length));
  const B = texts.length;
  const input_ids = new Int32Array(B * T).fill(PAD);
  const attention_mask = new Int32Array(B * T);
  const labels = new Int32Array(B * T).fill(-100);
  texts.forEach((text, b) => {
    input_ids.fill(IMAGE, b * T, b * T + Q).set(text, b * T + Q);
    attention_mask.fill(1, b * T, b * T + Q + text.length);
    labels.set(text.slice(1), b * T + Q + 1);
  });
  const shared = pictures && { pictures: Int32Array.from(pictures) };
  return { input_ids, attention_mask, labels, shape: [B, T], ...shared };
}

const TEXTS = [
  [2, 5, 6, 7],
  [2, 9],
  [2, 8, 8, 4, 3, 6],
];
const LAYER = 'language_model.model.decoder.layers.';

describe('frozenDepth', () => {
  let model: Blip2;
  beforeAll(async () => {
    await useBackend('cpu');
    model = await loadFolder(tiny);
  });
  it.each([
    [[`${LAYER}1.self_attn.q_proj.lora.lora_A.weight`, `${LAYER}1.fc1.bias`], 1],
    [[`${LAYER}1.self_attn.q_proj`], 1],
    [['language_model.lm_head'], 1],
    [['language_model.model.decoder.final_layer_norm.weight'], 1],
    [[`${LAYER}1.fc1.weight`, `${LAYER}0.fc2.bias`], 0],
    [[`${LAYER}1.fc1.weight`, 'language_projection.bias'], 0],
    [[`${LAYER}1.fc1.weight`, 'vision_model.post_layernorm.bias'], 0],
    [['language_model.model.decoder.embed_tokens.weight', 'language_model.lm_head.weight'], 0],
    [['language_model.model.decoder.embed_positions.weight'], 0],
  ])('of %s is %i', (names, depth) => {
    expect(frozenDepth(model.config, names)).toBe(depth);
    expect(names.every((name) => isBelow(model.config, name, depth))).toBe(false);
  });
});

describe.each(await availableBackends())('frozen layers on %s', (backend) => {
  let base: Blip2;
  beforeAll(async () => {
    await useBackend(backend, { precision: 'float32' });
    base = await loadFolder(tiny);
  });
  let model: Blip2;
  afterEach(() => dispose([...trainableLeaves(model.params).values()]));

  const train = (pattern: RegExp) => {
    const params = replaceLeaves(base.params, (name, t) => (pattern.test(name) ? variable(t, name) : t));
    model = { ...base, params };
    return [...trainableLeaves(params).values()];
  };
  const features = (P: number) => {
    const { image_size, patch_size, hidden_size } = base.config.vision_config;
    return { image_features: random<Tensor3D>('frozen', P, (image_size / patch_size) ** 2 + 1, hidden_size) };
  };
  const queries = (P: number) => ({
    query_embeds: random<Tensor3D>('queries', P, Q, base.config.text_config.hidden_size),
  });
  const run = async (leaves: ReturnType<typeof train>, f: () => Scalar) => {
    const { value, grads } = tidy(() => valueAndGrads(f, leaves));
    const all = (await Promise.all([value, ...grads].map((x) => x.data()))) as Float32Array[];
    dispose([value, ...grads]);
    return all;
  };
  // TensorFlow's matmul rounds a row differently at another place of a matrix.
  const same = (found: Float32Array[], expected: Float32Array[]) => {
    if (backend !== 'tensorflow') expect(found).toEqual(expected);
    else found.forEach((x, i) => expect(relativeError(x, expected[i])).toBeLessThan(1e-5));
  };

  it.each([
    ['a picture for each row', undefined],
    ['shared pictures', [0, 1, 0]],
  ])('continue from what was computed before, with the same loss and gradients: %s', async (_, pictures) => {
    const leaves = train(/^language_model.*(layers\.1\.|decoder\.final_layer_norm)/);
    const image = features(pictures ? 2 : 3);
    const tokens = rows(TEXTS, pictures);
    for (const dropout of [undefined, { language_model: rngKey(7) }])
      for (const o of [{}, { label_smoothing: 0.2 }, { checkpoint: true }]) {
        const options = { ...o, dropout, frozen_layers: 1 };
        const hidden = tidy(() => hiddenBelow(model, image, tokens, 1));
        const whole = await run(leaves, () => loss(model, image, tokens, options));
        same(await run(leaves, () => loss(model, { hidden }, tokens, options)), whole);
        if (!dropout) same(await run(leaves, () => loss(model, image, tokens, o)), whole);
        dispose(hidden);
      }
  });

  it('are alike for a picture and a text in every batch', async () => {
    train(/^language_model.*layers\.1\./);
    const [image, tokens] = [queries(2), rows(TEXTS, [0, 1, 0])];
    const partsOf = async (image: ReturnType<typeof queries>, tokens: TokenBatch) => {
      const all = (await tidy(() => hiddenBelow(model, image, tokens, 1)).data()) as Float32Array;
      const D = base.config.text_config.hidden_size;
      return segmentsOf(model.config, tokens).map(({ from, rows }) => all.slice(from * D, (from + rows) * D));
    };
    const segments = segmentsOf(model.config, tokens);
    expect(segments.map(({ picture, ids }) => [picture, [...ids]])).toEqual([
      ...[0, 1].map((p) => [p, []]),
      ...[0, 1, 0].map((p, b) => [p, TEXTS[b]]),
    ]);
    const whole = await partsOf(image, tokens);
    const alone = await partsOf(queries(1), rows([TEXTS[2]], [0])); // the first of the two pictures
    same(alone, [whole[0], whole[4]]);
  });

  it('still get their gradients if something in them trains', async () => {
    const leaves = train(/^language_model.*layers\.[01]\.fc1\.weight/);
    const [image, tokens] = [features(3), rows(TEXTS)];
    const whole = await run(leaves, () => loss(model, image, tokens));
    same(await run(leaves, () => loss(model, image, tokens, { frozen_layers: 1 })), whole);
  });

  it('refuse rows of another batch', () => {
    train(/^language_model.*layers\.1\./);
    const hidden = random<Tensor2D>('hidden', 5, base.config.text_config.hidden_size);
    expect(() => loss(model, { hidden }, rows(TEXTS), { frozen_layers: 1 })).toThrow(
      'hidden: expected the 24 packed positions of the batch, found [5,24]',
    );
  });
});
