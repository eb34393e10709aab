// BLIP-2's image encoder: a pre-norm ViT (EVA-CLIP ViT-g in the published checkpoints).
// Reference: transformers 5, `Blip2VisionModel` (models/blip_2/modeling_blip_2.py).
// B images, S pixels a side, P patch size, G = S/P patches a side, N = 1 + G² tokens, D hidden size, F mlp size.
import {
  add,
  attention,
  checkpoint,
  concat,
  gelu,
  layerNorm,
  layerNormShapes,
  linear,
  linearShapes,
  reshape,
  site,
  split,
  tile,
  transpose,
} from '@blip2/nn';
import type {
  Key,
  LayerNorm,
  Linear,
  StageOptions,
  Tensor1D,
  Tensor3D,
  Tensor4D,
  WeightTable,
} from '@blip2/nn';
import type { VisionConfig } from './config';

/** Field names are the checkpoint's: flattened, they spell `encoder.layers.0.self_attn.qkv.weight`. */
export interface VisionLayer {
  layer_norm1: LayerNorm; // [D]
  self_attn: {
    qkv: Linear; // [3·D, D]; bias absent when qkv_bias is false
    projection: Linear; // [D, D]
  };
  layer_norm2: LayerNorm; // [D]
  mlp: {
    fc1: Linear; // [F, D]
    fc2: Linear; // [D, F]
  };
}

/** The parameters under `vision_model.` of a BLIP-2 checkpoint. */
export interface VisionModel {
  embeddings: {
    class_embedding: Tensor3D; // [1, 1, D]
    position_embedding: Tensor3D; // [1, N, D]
    patch_embedding: { weight: Tensor4D /* [D, 3, P, P] */; bias: Tensor1D /* [D] */ };
  };
  encoder: { layers: VisionLayer[] };
  post_layernorm: LayerNorm; // [D]
}

/**
 * Encodes normalised pixels [B, 3, S, S] into image tokens [B, N, D], CLS first: transformers' `last_hidden_state`,
 * after `post_layernorm`. `tap` sees `hidden_states.0` (embeddings) … `hidden_states.L` (before `post_layernorm`).
 * Throws when the pixels are not [B, 3, image_size, image_size] or the tree has another number of layers.
 */
export function encodeImages(
  p: VisionModel,
  pixel_values: Tensor4D,
  cfg: VisionConfig,
  o: StageOptions = {},
): Tensor3D {
  const layers = p.encoder.layers;
  if (layers.length !== cfg.num_hidden_layers)
    throw new Error(
      `encodeImages: expected ${cfg.num_hidden_layers} encoder layers (num_hidden_layers), got ${layers.length}`,
    );
  let x = embed(p, pixel_values, cfg); // [B, N, D]
  o.tap?.('hidden_states.0', x);
  layers.forEach((layer, i) => {
    const key = site(o.dropout, i);
    const run = (h: Tensor3D) => block(layer, h, cfg, key);
    x = o.checkpoint ? checkpoint(run, [x], layer) : run(x);
    o.tap?.(`hidden_states.${i + 1}`, x);
  });
  return layerNorm(p.post_layernorm, x, cfg.layer_norm_eps);
}

/** Patches, CLS and positions: [B, 3, S, S] → [B, N, D]. */
function embed(p: VisionModel, pixel_values: Tensor4D, cfg: VisionConfig): Tensor3D {
  const { hidden_size: D, image_size: S, patch_size: P } = cfg;
  const [B, C, height, width] = pixel_values.shape;
  if (pixel_values.rank !== 4 || C !== 3 || height !== S || width !== S)
    throw new Error(
      `encodeImages: expected pixel_values [B, 3, ${S}, ${S}] (image_size ${S}), got [${pixel_values.shape}]; ` +
        'resize the images: position embeddings are not interpolated',
    );
  const { class_embedding, position_embedding, patch_embedding } = p.embeddings;
  // A convolution whose stride is its kernel size is a linear map of each patch.
  const kernel: Linear = {
    weight: reshape(patch_embedding.weight, [D, 3 * P * P]),
    bias: patch_embedding.bias,
  };
  const patches = linear(kernel, patchRows(pixel_values, P)); // [B, G², D]
  const cls = tile(class_embedding, [B, 1, 1]); // [B, 1, D]
  return add(concat([cls, patches], 1), position_embedding); // [B, N, D]
}

/** [B, 3, S, S] → [B, G², 3·P·P], patches row by row, each in the kernel's order (channel, row, column). */
function patchRows(pixel_values: Tensor4D, P: number): Tensor3D {
  const [B, , S] = pixel_values.shape;
  const G = S / P;
  const strips = reshape(pixel_values, [B * 3 * G, P, G, P]);
  const cells = reshape(transpose(strips, [0, 2, 1, 3]), [B, 3, G * G, P * P]);
  return reshape(transpose(cells, [0, 2, 1, 3]), [B, G * G, 3 * P * P]);
}

/** x [B, N, D] → [B, N, D]. */
function block(p: VisionLayer, x: Tensor3D, cfg: VisionConfig, key: Key | undefined): Tensor3D {
  const { num_attention_heads: numHeads, layer_norm_eps: eps, attention_dropout: rate } = cfg;
  const qkv = linear(p.self_attn.qkv, layerNorm(p.layer_norm1, x, eps), site(key, 'qkv')); // [B, N, 3·D]
  const [q, k, v] = split(qkv, 3, 2); // each [B, N, D]
  const seen = attention(q, k, v, { numHeads, dropout: { rate, key: site(key, 'attention') } });
  x = add(linear(p.self_attn.projection, seen, site(key, 'projection')), x);
  const h = gelu(linear(p.mlp.fc1, layerNorm(p.layer_norm2, x, eps), site(key, 'fc1'))); // [B, N, F]
  return add(linear(p.mlp.fc2, h, site(key, 'fc2')), x); // [B, N, D]
}

/** Every tensor of the encoder with its shape, names prefixed with `prefix` (`vision_model.` in a BLIP-2 checkpoint). */
export function visionWeights(cfg: VisionConfig, prefix = ''): WeightTable {
  const { hidden_size: D, intermediate_size: F, patch_size: P } = cfg;
  const N = 1 + (cfg.image_size / P) ** 2;
  const layer = (i: number) => {
    const at = `encoder.layers.${i}`;
    return [
      ...layerNormShapes(`${at}.layer_norm1`, D),
      ...linearShapes(`${at}.self_attn.qkv`, D, 3 * D, cfg.qkv_bias),
      ...linearShapes(`${at}.self_attn.projection`, D, D),
      ...layerNormShapes(`${at}.layer_norm2`, D),
      ...linearShapes(`${at}.mlp.fc1`, D, F),
      ...linearShapes(`${at}.mlp.fc2`, F, D),
    ];
  };
  const table: WeightTable = [
    ['embeddings.class_embedding', [1, 1, D]],
    ['embeddings.position_embedding', [1, N, D]],
    ['embeddings.patch_embedding.weight', [D, 3, P, P]],
    ['embeddings.patch_embedding.bias', [D]],
    ...Array.from({ length: cfg.num_hidden_layers }, (_, i) => layer(i)).flat(),
    ...layerNormShapes('post_layernorm', D),
  ];
  return table.map(([name, shape]) => [prefix + name, shape]);
}
