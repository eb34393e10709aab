import {
  flatten,
  memory,
  mul,
  rngKey,
  sum,
  tensor,
  tidy,
  trainableLeaves,
  valueAndGrads,
  watchLinears,
} from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import type { Scalar, StageOptions, Tensor, Tensor4D } from '@blip2/nn';
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
import { encodeImages, parseVisionConfig, visionWeights } from './index';
import type { VisionModel } from './index';

const FORWARD = 1e-5;
const BACKWARD = 1e-4;
const backends = await availableBackends();
const cases = ['vision', 'vision-no-qkv-bias'];

describe.each(backends)('encodeImages on %s', (backend) => {
  beforeAll(async () => void (await useBackend(backend)));

  describe.each(cases)('%s', (name) => {
    it('equals transformers in every hidden state', async () => {
      const golden = await readGolden(import.meta.url, name);
      const cfg = parseVisionConfig(golden.config);
      const states = new Map<string, Tensor>();
      const out = encodeImages(weightTree(golden), toTensor(golden, 'pixel_values'), cfg, {
        tap: (state, x) => states.set(state, x),
      });
      expect([...states.keys()]).toEqual(
        Array.from({ length: cfg.num_hidden_layers + 1 }, (_, i) => `hidden_states.${i}`),
      );
      for (const [state, x] of states) expectClose(x, get(golden, state), FORWARD);
      expectClose(out, get(golden, 'last_hidden_state'), FORWARD);
    });

    it.each([false, true])('equals transformers in every gradient (checkpoint %s)', async (checkpoint) => {
      const golden = await readGolden(import.meta.url, name);
      const cfg = parseVisionConfig(golden.config);
      const p = weightTree<VisionModel>(golden, () => true);
      const leaves = trainableLeaves(p);
      const pixels = toTensor<Tensor4D>(golden, 'pixel_values');
      const weight = toTensor(golden, 'loss_weight');
      const loss = () => sum<Scalar>(mul(encodeImages(p, pixels, cfg, { checkpoint }), weight));
      const { grads } = valueAndGrads(loss, [...leaves.values()]);
      expect([...leaves.keys()].sort()).toEqual(namesUnder(golden, 'grads.').sort());
      [...leaves.keys()].forEach((leaf, i) =>
        expectClose(grads[i], get(golden, `grads.${leaf}`), BACKWARD, { floor: 0.1 }),
      );
    });
  });

  it('gives a leaf the same gradient when all others are frozen', async () => {
    const golden = await readGolden(import.meta.url, 'vision');
    const name = 'encoder.layers.0.mlp.fc1.weight';
    const p = weightTree<VisionModel>(golden, (leaf) => leaf === name);
    const pixels = toTensor<Tensor4D>(golden, 'pixel_values');
    const weight = toTensor(golden, 'loss_weight');
    const cfg = parseVisionConfig(golden.config);
    const loss = () => sum<Scalar>(mul(encodeImages(p, pixels, cfg, { checkpoint: true }), weight));
    const { grads } = valueAndGrads(loss, [...trainableLeaves(p).values()]);
    expect(grads).toHaveLength(1);
    expectClose(grads[0], get(golden, `grads.${name}`), BACKWARD);
  });

  it('applies attention dropout only with a key, always the same for one key, with or without checkpointing', async () => {
    const golden = await readGolden(import.meta.url, 'vision');
    const p = weightTree<VisionModel>(golden);
    const pixels = toTensor<Tensor4D>(golden, 'pixel_values');
    const cfg = { ...parseVisionConfig(golden.config), attention_dropout: 0.5 };
    const run = (o: StageOptions) => Array.from(encodeImages(p, pixels, cfg, o).dataSync());
    expectKeyedDropout(run);
  });

  it('computes each linear layer on its own where they are watched', async () => {
    const golden = await readGolden(import.meta.url, 'vision');
    const p = weightTree<VisionModel>(golden);
    const run = () => encodeImages(p, toTensor(golden, 'pixel_values'), parseVisionConfig(golden.config));
    const seen: number[] = [];
    const watched = watchLinears((weight) => void seen.push(weight.id), run);
    const ofLayers = p.encoder.layers.flatMap(({ self_attn: { qkv, projection }, mlp: { fc1, fc2 } }) =>
      [qkv, projection, fc1, fc2].map(({ weight }) => weight.id),
    );
    expect(seen.slice(1)).toEqual(ofLayers); // the first is the patch embedding
    expect(watched.dataSync()).toEqual(run().dataSync());
  });

  it('encodes each image of a batch independently', async () => {
    const golden = await readGolden(import.meta.url, 'vision');
    const p = weightTree<VisionModel>(golden);
    const { values } = get(golden, 'pixel_values');
    const second = tensor<Tensor4D>(values.slice(values.length / 2), [1, 3, 12, 12]);
    const out = encodeImages(p, second, parseVisionConfig(golden.config));
    const both = get(golden, 'last_hidden_state');
    const expected = { shape: [1, 10, 16], values: both.values.slice(both.values.length / 2) };
    expectClose(out, expected, FORWARD);
  });

  it('passes a key to linear, so that adapter dropout is active in training only', async () => {
    const golden = await readGolden(import.meta.url, 'vision');
    const p = weightTree<VisionModel>(golden);
    const lora = {
      lora_A: { weight: tensor(new Float32Array(2 * 16).fill(0.3), [2, 16]) },
      lora_B: { weight: tensor(new Float32Array(48 * 2).fill(0.2), [48, 2]) },
      scaling: 2,
      dropout: 0.5,
    };
    const layers = p.encoder.layers.map((layer) => ({
      ...layer,
      self_attn: { ...layer.self_attn, qkv: { ...layer.self_attn.qkv, lora } },
    })) as VisionModel['encoder']['layers'];
    const pixels = toTensor<Tensor4D>(golden, 'pixel_values');
    const cfg = { ...parseVisionConfig(golden.config), attention_dropout: 0 };
    const run = (model: VisionModel, o: StageOptions) =>
      Array.from(encodeImages(model, pixels, cfg, o).dataSync());
    const adapted = { ...p, encoder: { layers } };
    expect(run(p, { dropout: rngKey(1) })).toEqual(run(p, {}));
    expect(run(adapted, {})).not.toEqual(run(p, {}));
    expect(run(adapted, { dropout: rngKey(1) })).not.toEqual(run(adapted, {}));
  });

  it('refuses pixels of the wrong size and a wrong number of layers, with what was expected and found', async () => {
    const golden = await readGolden(import.meta.url, 'vision');
    const p = weightTree<VisionModel>(golden);
    const cfg = parseVisionConfig(golden.config);
    const wrong = tensor<Tensor4D>(new Float32Array(2 * 3 * 16 * 16), [2, 3, 16, 16]);
    expect(() => encodeImages(p, wrong, cfg)).toThrow(
      /encodeImages: expected pixel_values \[B, 3, 12, 12\] \(image_size 12\), found \[2,3,16,16\]/,
    );
    const pixels = toTensor<Tensor4D>(golden, 'pixel_values');
    expect(() => encodeImages(p, pixels, { ...cfg, num_hidden_layers: 3 })).toThrow(
      /expected 3 encoder layers \(num_hidden_layers\), found 2/,
    );
  });

  it('leaves no tensor behind in a tidy', async () => {
    const golden = await readGolden(import.meta.url, 'vision');
    const p = weightTree<VisionModel>(golden);
    const pixels = toTensor<Tensor4D>(golden, 'pixel_values');
    const before = memory().numTensors;
    const out = tidy(() => encodeImages(p, pixels, parseVisionConfig(golden.config)));
    expect(memory().numTensors).toBe(before + 1);
    out.dispose();
  });
});

describe('visionWeights', () => {
  it.each(cases)('lists the tensors of %s with their shapes', async (name) => {
    const golden = await readGolden(import.meta.url, name);
    const table = visionWeights(parseVisionConfig(golden.config), 'weights.');
    const expected = namesUnder(golden, 'weights.').map((n) => [
      `weights.${n}`,
      get(golden, `weights.${n}`).shape,
    ]);
    expect(table.map(([n, shape]) => `${n} ${shape}`).sort()).toEqual(
      expected.map(([n, shape]) => `${n} ${shape}`).sort(),
    );
    expect(flatten(weightTree<VisionModel>(golden)).size).toBe(table.length);
  });

  it('has as many parameters as the published encoders', () => {
    const count = (image_size: number) =>
      visionWeights(parseVisionConfig({ image_size })).reduce(
        (n, [, shape]) => n + shape.reduce((a, b) => a * b, 1),
        0,
      );
    expect(count(224)).toBe(985_952_256);
    expect(count(364)).toBe(986_543_616);
  });
});

describe('parseVisionConfig', () => {
  it('has the defaults of Blip2VisionConfig and ignores other keys', () => {
    expect(parseVisionConfig({ num_channels: 3, dropout: 0.3, hidden_size: null })).toEqual({
      hidden_size: 1408,
      intermediate_size: 6144,
      num_hidden_layers: 39,
      num_attention_heads: 16,
      image_size: 224,
      patch_size: 14,
      hidden_act: 'gelu',
      layer_norm_eps: 1e-6,
      attention_dropout: 0,
      qkv_bias: true,
    });
  });

  it('reads a square size written as a pair', () => {
    expect(parseVisionConfig({ image_size: [364, 364] }).image_size).toBe(364);
  });

  it.each([
    [{ hidden_act: 'gelu_new' }, 'vision_config.hidden_act: expected "gelu", found "gelu_new"'],
    [{ image_size: 230 }, 'vision_config.image_size: expected a multiple of patch_size (14), found 230'],
    [{ image_size: [224, 364] }, 'vision_config.image_size: expected a positive integer or a square [n, n]'],
    [
      { num_attention_heads: 15 },
      'vision_config.hidden_size: expected a multiple of num_attention_heads (15)',
    ],
    [{ layer_norm_eps: '1e-6' }, 'vision_config.layer_norm_eps: expected a number above 0, found "1e-6"'],
    [{ attention_dropout: 1 }, 'vision_config.attention_dropout: expected a rate in [0, 1), found 1'],
    [{ qkv_bias: 1 }, 'vision_config.qkv_bias: expected true or false, found 1'],
    [
      { num_hidden_layers: 0 },
      'vision_config.num_hidden_layers: expected a positive integer, at most 1000, found 0',
    ],
    [[], 'vision_config: expected an object, found []'],
  ])('refuses %j', (json, message) => {
    expect(() => parseVisionConfig(json)).toThrow(message);
  });
});
