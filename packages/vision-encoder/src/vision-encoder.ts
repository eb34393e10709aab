// BLIP-2's image encoder: a pre-norm ViT (EVA-CLIP ViT-g in the published checkpoints).
// Reference: transformers 5, `Blip2VisionModel` (models/blip_2/modeling_blip_2.py).
// B images of height × width pixels, P patch size, G × W patches, N = 1 + G·W tokens, D hidden size, F mlp size;
// S × S is the image size of the checkpoint.
import {
  activatedLinear,
  add,
  attention,
  checkpoint,
  concat,
  dispose,
  encoderLayers,
  isObserved,
  layerNorm,
  layerNormShapes,
  linear,
  linearShapes,
  plainLayers,
  reshape,
  residualLinear,
  site,
  slice,
  split,
  tidy,
  tile,
  transpose,
} from '@blip2/nn';
import type {
  EncoderLayer,
  Key,
  LayerNorm,
  Linear,
  StageOptions,
  Tensor1D,
  Tensor2D,
  Tensor3D,
  Tensor4D,
  WeightTable,
} from '@blip2/nn';
import type { VisionConfig } from './config';
import { interpolatePositions } from './positions';

/** Field names are those of the checkpoint; flattened, they give `encoder.layers.0.self_attn.qkv.weight`. */
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

export interface EncodeOptions extends StageOptions {
  /** Accept any image size that is a multiple of the patch size; the position embeddings are interpolated. */
  interpolate_pos_encoding?: boolean;
}

/**
 * Encodes normalised pixels [B, 3, S, S] into image tokens [B, N, D], CLS first: transformers' `last_hidden_state`,
 * after `post_layernorm`. `tap` gets `hidden_states.0` (embeddings) … `hidden_states.L` (before `post_layernorm`).
 * @throws Error if the pixels are not [B, 3, S, S] (with `interpolate_pos_encoding`: not whole patches) or the number of layers
 * differs from the config
 */
export function encodeImages(
  p: VisionModel,
  pixel_values: Tensor4D,
  cfg: VisionConfig,
  o: EncodeOptions = {},
): Tensor3D {
  const layers = p.encoder.layers;
  if (layers.length !== cfg.num_hidden_layers)
    throw new Error(
      `encodeImages: expected ${cfg.num_hidden_layers} encoder layers (num_hidden_layers), found ${layers.length}`,
    );
  let x = embed(p, pixel_values, cfg, o.interpolate_pos_encoding ?? false); // [B, N, D]
  o.tap?.('hidden_states.0', x);
  x = inOneKernel(layers, x, cfg, o) ?? eachLayer(layers, x, cfg, o);
  return layerNorm(p.post_layernorm, x, cfg.layer_norm_eps);
}

/** `eachLayer` where no backward pass and nothing else looks into the layers. */
function inOneKernel(
  layers: readonly VisionLayer[],
  x: Tensor3D,
  { num_attention_heads: numHeads, layer_norm_eps: eps }: VisionConfig,
  o: StageOptions,
): Tensor3D | undefined {
  const plain = o.tap || o.dropout || isObserved() ? null : plainLayers(layers, encoderLayerOf);
  if (!plain) return undefined;
  const y = encoderLayers(plain, x, { numHeads, eps, activation: 'gelu' });
  dispose(x);
  return y;
}

function encoderLayerOf({ layer_norm1, self_attn, layer_norm2, mlp }: VisionLayer): EncoderLayer {
  return {
    norms: [layer_norm1, layer_norm2],
    linears: [self_attn.qkv, self_attn.projection, mlp.fc1, mlp.fc2],
  };
}

/** The layers one by one: x [B, N, D], which is disposed of unless it is tapped → [B, N, D]. */
function eachLayer(
  layers: readonly VisionLayer[],
  x: Tensor3D,
  cfg: VisionConfig,
  o: StageOptions,
): Tensor3D {
  layers.forEach((layer, i) => {
    const key = site(o.dropout, i);
    const run = (h: Tensor3D) => block(layer, h, cfg, key);
    const y = o.checkpoint ? checkpoint(run, [x], layer) : tidy(() => run(x));
    if (!o.tap) dispose(x);
    x = y;
    o.tap?.(`hidden_states.${i + 1}`, x);
  });
  return x;
}

/**
 * One vector per image [B, D], transformers' `pooler_output`: the CLS token of the result of `encodeImages`, with
 * `post_layernorm` applied again. Captioning does not use it.
 */
export function poolImages(p: VisionModel, image_features: Tensor3D, cfg: VisionConfig): Tensor2D {
  const [B, , D] = image_features.shape;
  const cls = reshape<Tensor2D>(slice(image_features, [0, 0, 0], [B, 1, D]), [B, D]);
  return layerNorm(p.post_layernorm, cls, cfg.layer_norm_eps);
}

/** Embeds the patches, adds CLS and positions: [B, 3, height, width] → [B, N, D]. */
function embed(p: VisionModel, pixel_values: Tensor4D, cfg: VisionConfig, interpolate: boolean): Tensor3D {
  const { hidden_size: D, patch_size: P } = cfg;
  checkSize(pixel_values, cfg, interpolate);
  const [B, , height, width] = pixel_values.shape;
  const { class_embedding, position_embedding, patch_embedding } = p.embeddings;
  // A convolution with stride equal to its kernel size is a linear map of each patch.
  const kernel: Linear = {
    weight: reshape(patch_embedding.weight, [D, 3 * P * P]),
    bias: patch_embedding.bias,
  };
  const patches = linear(kernel, patchRows(pixel_values, P)); // [B, G·W, D]
  const cls = tile(class_embedding, [B, 1, 1]); // [B, 1, D]
  const positions = interpolatePositions(position_embedding, height / P, width / P); // [1, N, D]
  return add(concat([cls, patches], 1), positions); // [B, N, D]
}

function checkSize(
  pixel_values: Tensor4D,
  { image_size: S, patch_size: P }: VisionConfig,
  interpolate: boolean,
): void {
  const [, C, height, width] = pixel_values.shape;
  const wholePatches = height > 0 && width > 0 && height % P === 0 && width % P === 0;
  const fits = interpolate ? wholePatches : height === S && width === S;
  if (pixel_values.rank === 4 && C === 3 && fits) return;
  const expected = interpolate
    ? `[B, 3, height, width] in multiples of the patch size ${P}`
    : `[B, 3, ${S}, ${S}] (image_size ${S})`;
  const help = interpolate
    ? 'resize the images'
    : 'resize the images, or set interpolate_pos_encoding to interpolate the position embeddings';
  throw new Error(`encodeImages: expected pixel_values ${expected}, found [${pixel_values.shape}]; ${help}`);
}

/** [B, 3, height, width] → [B, G·W, 3·P·P], patches row by row, each in the order of the kernel (channel, row, column). */
function patchRows(pixel_values: Tensor4D, P: number): Tensor3D {
  const [B, , height, width] = pixel_values.shape;
  const [G, W] = [height / P, width / P];
  const strips = reshape(pixel_values, [B * 3 * G, P, W, P]);
  const cells = reshape(transpose(strips, [0, 2, 1, 3]), [B, 3, G * W, P * P]);
  return reshape(transpose(cells, [0, 2, 1, 3]), [B, G * W, 3 * P * P]);
}

/** One pre-norm layer: x [B, N, D] → [B, N, D]. */
function block(p: VisionLayer, x: Tensor3D, cfg: VisionConfig, key: Key | undefined): Tensor3D {
  const { num_attention_heads: numHeads, layer_norm_eps: eps, attention_dropout: rate } = cfg;
  const qkv = linear(p.self_attn.qkv, layerNorm(p.layer_norm1, x, eps), site(key, 'qkv')); // [B, N, 3·D]
  const [q, k, v] = split(qkv, 3, 2); // each [B, N, D]
  const attended = attention(q, k, v, { numHeads, dropout: { rate, key: site(key, 'attention') } });
  x = residualLinear(p.self_attn.projection, attended, x, { key: site(key, 'projection') });
  const h = activatedLinear('gelu', p.mlp.fc1, layerNorm(p.layer_norm2, x, eps), site(key, 'fc1')); // [B, N, F]
  return residualLinear(p.mlp.fc2, h, x, { key: site(key, 'fc2') }); // [B, N, D]
}

/** Name and shape of every tensor; `prefix` goes before each name (`vision_model.` in a BLIP-2 checkpoint). */
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
