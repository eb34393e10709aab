import { describe, expect, it } from 'vitest';
import { layerScale } from './layer-decay';
import { createAdamW, disposeAdamW, updateAdamW } from './optimizer';
import { ADAMW, toyTrainables, valuesOf } from '../../spec/toy';
import { globalNorm, tensor } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';

describe('layerScale', () => {
  it('falls from the last layer of the vision tower to its embeddings, as in LAVIS', () => {
    // LAVIS: scales = [decay ** (L + 1 - i) for i in range(L + 2)], i = 0 for embeddings, layer + 1, L for the rest
    const scale = layerScale(0.5, 3);
    const names = {
      'vision_model.embeddings.class_embedding': 1 / 16,
      'vision_model.embeddings.patch_embedding.weight': 1 / 16,
      'vision_model.encoder.layers.0.mlp.fc1.weight': 1 / 8,
      'vision_model.encoder.layers.2.self_attn.qkv.bias': 1 / 2,
      'vision_model.post_layernorm.weight': 1 / 2,
      'qformer.encoder.layer.0.attention.output.dense.weight': 1,
      query_tokens: 1,
      'language_model.model.decoder.layers.0.fc1.weight': 1,
    };
    for (const [name, factor] of Object.entries(names)) expect(scale(name), name).toBe(factor);
    expect(layerScale(1, 3)('vision_model.embeddings.class_embedding')).toBe(1);
  });

  it('scales the whole update of a tensor, decay included, and of no other', async () => {
    await useBackend('cpu');
    const moved = async (lr: number, lrScale?: (name: string) => number) => {
      const trainables = toyTrainables();
      const optimizer = createAdamW(trainables, ADAMW, undefined, lrScale);
      const grads = [...trainables.values()].map((x) => tensor(new Float32Array(x.size).fill(0.3), x.shape));
      updateAdamW(optimizer, grads, globalNorm(grads), lr);
      disposeAdamW(optimizer);
      return valuesOf(trainables);
    };
    const halved = await moved(0.2, (name) => (name === 'weight' ? 0.5 : 1));
    expect(halved.weight).toEqual((await moved(0.1)).weight);
    expect(halved.bias).toEqual((await moved(0.2)).bias);
  });
});
