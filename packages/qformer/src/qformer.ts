// BLIP-2's Q-Former: a post-norm BERT over learned queries, with cross-attention to image tokens; no text branch.
// Reference: transformers 5, `Blip2QFormerModel` (models/blip_2/modeling_blip_2.py), use_qformer_text_input false.
// B images, Q queries, D hidden size, N image tokens, E their width, F feed-forward size.
import {
  activatedLinear,
  attention,
  checkpoint,
  dispose,
  dropout,
  layerNorm,
  layerNormShapes,
  linear,
  linearShapes,
  residualLinear,
  site,
  tidy,
  tile,
} from '@blip2/nn';
import type { Key, LayerNorm, Linear, StageOptions, Tensor3D, WeightTable } from '@blip2/nn';
import type { QFormerConfig } from './config';

/** Field names are those of the checkpoint, including BERT's capitals. */
export interface QFormerAttention {
  attention: { query: Linear /* [D, D] */; key: Linear /* [D, D or E] */; value: Linear /* [D, D or E] */ };
  output: { dense: Linear /* [D, D] */; LayerNorm: LayerNorm /* [D] */ };
}

export interface QFormerLayer {
  attention: QFormerAttention;
  crossattention?: QFormerAttention; // in layers 0, f, 2f, … with f = cross_attention_frequency; key and value [D, E]
  intermediate_query: { dense: Linear /* [F, D] */ };
  output_query: { dense: Linear /* [D, F] */; LayerNorm: LayerNorm /* [D] */ };
}

/** The parameters under `qformer.` of a BLIP-2 checkpoint. */
export interface QFormerModel {
  layernorm: LayerNorm; // [D]
  encoder: { layer: QFormerLayer[] };
}

/**
 * Runs the queries [1, Q, D] against the tokens of each image [B, N, E] → [B, Q, D], transformers' `last_hidden_state`.
 * `tap` gets `hidden_states.0` (queries after LayerNorm) … `hidden_states.L` (the result).
 * @throws Error if a shape or the layers do not match the config
 */
export function queryImages(
  p: QFormerModel,
  query_tokens: Tensor3D,
  image_features: Tensor3D,
  cfg: QFormerConfig,
  o: StageOptions = {},
): Tensor3D {
  check(p, query_tokens, image_features, cfg);
  const B = image_features.shape[0];
  const queries = tile(layerNorm(p.layernorm, query_tokens, cfg.layer_norm_eps), [B, 1, 1]); // [B, Q, D]
  let x = dropout(queries, cfg.hidden_dropout_prob, site(o.dropout, 'embeddings'));
  o.tap?.('hidden_states.0', x);
  p.encoder.layer.forEach((layer, i) => {
    const key = site(o.dropout, i);
    const run = (h: Tensor3D, image: Tensor3D) => block(layer, h, image, cfg, key);
    const y = o.checkpoint ? checkpoint(run, [x, image_features], layer) : tidy(() => run(x, image_features));
    if (!o.tap) dispose(x);
    x = y;
    o.tap?.(`hidden_states.${i + 1}`, x);
  });
  return x;
}

/** x [B, Q, D], image [B, N, E] → [B, Q, D]: self-attention, cross-attention (if the layer has it), feed-forward. */
function block(
  p: QFormerLayer,
  x: Tensor3D,
  image: Tensor3D,
  cfg: QFormerConfig,
  key: Key | undefined,
): Tensor3D {
  x = attend(p.attention, x, x, cfg, site(key, 'attention'));
  if (p.crossattention) x = attend(p.crossattention, x, image, cfg, site(key, 'crossattention'));
  const h = activatedLinear('gelu', p.intermediate_query.dense, x, site(key, 'intermediate_query')); // [B, Q, F]
  return output(p.output_query, h, x, cfg, site(key, 'output_query'));
}

/** Attention of x [B, Q, D] to `source` [B, Q, D] or [B, N, E], with its output projection → [B, Q, D]. */
function attend(
  p: QFormerAttention,
  x: Tensor3D,
  source: Tensor3D,
  cfg: QFormerConfig,
  key: Key | undefined,
): Tensor3D {
  const { num_attention_heads: numHeads, attention_probs_dropout_prob: rate } = cfg;
  const q = linear(p.attention.query, x, site(key, 'query')); // [B, Q, D]
  const k = linear(p.attention.key, source, site(key, 'key')); // [B, Q or N, D]
  const v = linear(p.attention.value, source, site(key, 'value')); // [B, Q or N, D]
  const attended = attention(q, k, v, { numHeads, dropout: { rate, key: site(key, 'probs') } }); // [B, Q, D]
  return output(p.output, attended, x, cfg, site(key, 'output'));
}

/** BERT's output step: LayerNorm(dropout(dense(h)) + residual). h [B, Q, D or F] → [B, Q, D]. */
function output(
  p: QFormerAttention['output'],
  h: Tensor3D,
  residual: Tensor3D,
  cfg: QFormerConfig,
  key: Key | undefined,
): Tensor3D {
  const y = residualLinear(p.dense, h, residual, {
    key: site(key, 'dense'),
    dropout: { rate: cfg.hidden_dropout_prob, key: site(key, 'dropout') },
  });
  return layerNorm(p.LayerNorm, y, cfg.layer_norm_eps);
}

function check(p: QFormerModel, query_tokens: Tensor3D, image_features: Tensor3D, cfg: QFormerConfig): void {
  const { hidden_size: D, encoder_hidden_size: E, num_hidden_layers: L } = cfg;
  if (query_tokens.rank !== 3 || query_tokens.shape[0] !== 1 || query_tokens.shape[2] !== D)
    throw new Error(
      `queryImages: expected query_tokens [1, Q, ${D}] (hidden_size), found [${query_tokens.shape}]`,
    );
  if (image_features.rank !== 3 || image_features.shape[2] !== E)
    throw new Error(
      `queryImages: expected image_features [B, N, ${E}] (encoder_hidden_size), found [${image_features.shape}]`,
    );
  const layers = p.encoder.layer;
  if (layers.length !== L)
    throw new Error(`queryImages: expected ${L} encoder layers (num_hidden_layers), found ${layers.length}`);
  layers.forEach((layer, i) => {
    const expected = i % cfg.cross_attention_frequency === 0;
    if (expected !== (layer.crossattention !== undefined))
      throw new Error(
        `queryImages: expected ${expected ? 'a' : 'no'} crossattention in encoder.layer.${i} ` +
          `(cross_attention_frequency ${cfg.cross_attention_frequency}), found ${expected ? 'none' : 'one'}`,
      );
  });
}

/** Name and shape of every tensor; `prefix` goes before each name (`qformer.` in a BLIP-2 checkpoint). */
export function qformerWeights(cfg: QFormerConfig, prefix = ''): WeightTable {
  const { hidden_size: D, intermediate_size: F, encoder_hidden_size: E } = cfg;
  const attn = (name: string, source: number) => [
    ...linearShapes(`${name}.attention.query`, D, D),
    ...linearShapes(`${name}.attention.key`, source, D),
    ...linearShapes(`${name}.attention.value`, source, D),
    ...linearShapes(`${name}.output.dense`, D, D),
    ...layerNormShapes(`${name}.output.LayerNorm`, D),
  ];
  const layer = (i: number) => {
    const at = `encoder.layer.${i}`;
    return [
      ...attn(`${at}.attention`, D),
      ...(i % cfg.cross_attention_frequency === 0 ? attn(`${at}.crossattention`, E) : []),
      ...linearShapes(`${at}.intermediate_query.dense`, D, F),
      ...linearShapes(`${at}.output_query.dense`, F, D),
      ...layerNormShapes(`${at}.output_query.LayerNorm`, D),
    ];
  };
  const table = [
    ...layerNormShapes('layernorm', D),
    ...Array.from({ length: cfg.num_hidden_layers }, (_, i) => layer(i)).flat(),
  ];
  return table.map(([name, shape]) => [prefix + name, shape]);
}
