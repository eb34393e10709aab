// BLIP-2's Q-Former: a post-norm BERT over learned queries and texts, in which the queries also attend to image tokens.
// Reference: transformers 5, `Blip2QFormerModel` (models/blip_2/modeling_blip_2.py).
// B images, Q queries, T positions of a text, D hidden size, N image tokens, E their width, F feed-forward size.
import {
  activatedLinear,
  attention,
  checkpoint,
  concat,
  dispose,
  dropout,
  layerNorm,
  layerNormShapes,
  linear,
  linearShapes,
  mul,
  reshape,
  residualLinear,
  site,
  slice,
  softmax,
  tensor,
  tidy,
  tile,
} from '@blip2/nn';
import type {
  Key,
  LayerNorm,
  Linear,
  StageOptions,
  Tensor2D,
  Tensor3D,
  Tensor4D,
  WeightTable,
} from '@blip2/nn';
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
  /** For texts, with use_qformer_text_input. */
  intermediate?: QFormerLayer['intermediate_query'];
  output?: QFormerLayer['output_query'];
}

/** The parameters under `qformer.` of a BLIP-2 checkpoint. */
export interface QFormerModel {
  layernorm: LayerNorm; // [D]
  encoder: { layer: QFormerLayer[] };
}

/** Embedded texts, each with its padding. */
export interface QFormerTexts {
  /** [B, T, D] */
  embeds: Tensor3D;
  /** [B, T], row-major: 1 for tokens, 0 for padding. */
  mask: Int32Array;
  /**
   * Beside queries: tokens see the queries and the tokens before them, and the queries see no text, as in a text that is generated from
   * an image (BLIP-2's first stage).
   */
  causal?: boolean;
}

/**
 * Runs the queries [1, Q, D] against the tokens of each image [B, N, E] → [B, Q, D], transformers' `last_hidden_state`.
 * With `texts`, queries and texts attend to each other → [B, Q + T, D], queries first.
 * `tap` gets `hidden_states.0` (queries after LayerNorm) … `hidden_states.L` (the result).
 * @throws Error if a shape or the layers do not match the config
 */
export function queryImages(
  p: QFormerModel,
  query_tokens: Tensor3D,
  image_features: Tensor3D,
  cfg: QFormerConfig,
  { texts, ...o }: StageOptions & { texts?: QFormerTexts } = {},
): Tensor3D {
  check(p, query_tokens, image_features, cfg);
  const [B, Q] = [image_features.shape[0], query_tokens.shape[1]];
  if (!texts) {
    const queries = tile(layerNorm(p.layernorm, query_tokens, cfg.layer_norm_eps), [B, 1, 1]); // [B, Q, D]
    return layers(p, queries, { Q, image: image_features }, cfg, o);
  }
  checkTexts(texts, cfg, B);
  return tidy(() => {
    const rows = concat([tile(query_tokens, [B, 1, 1]), texts.embeds], 1); // [B, Q + T, D]
    const T = texts.embeds.shape[1];
    const mask = Float32Array.from({ length: B * (Q + T) }, (_, i) => {
      const at = i % (Q + T);
      return at < Q ? 1 : texts.mask[Math.floor(i / (Q + T)) * T + at - Q];
    });
    return layers(
      p,
      layerNorm(p.layernorm, rows, cfg.layer_norm_eps),
      { Q, image: image_features, mask: { keys: mask, queriesAlone: texts.causal ? Q : undefined } },
      cfg,
      o,
    );
  });
}

/**
 * Reads texts without an image → [B, T, D].
 * @throws Error if a shape does not match the config, or the config has no use_qformer_text_input
 */
export function readTexts(
  p: QFormerModel,
  texts: QFormerTexts,
  cfg: QFormerConfig,
  o: StageOptions = {},
): Tensor3D {
  checkTexts(texts, cfg, texts.embeds.shape[0]);
  return tidy(() => {
    const x = layerNorm(p.layernorm, texts.embeds, cfg.layer_norm_eps);
    return layers(p, x, { Q: 0, mask: { keys: Float32Array.from(texts.mask) } }, cfg, o);
  });
}

/**
 * Where the queries look: the attention weights of each layer with cross-attention, first to last, [B, H, Q, N]; those of a query sum to 1 over the
 * image tokens. transformers' `cross_attentions` with `output_attentions`.
 * @throws Error as `queryImages`
 */
export function crossAttentions(
  p: QFormerModel,
  query_tokens: Tensor3D,
  image_features: Tensor3D,
  cfg: QFormerConfig,
): Tensor4D[] {
  check(p, query_tokens, image_features, cfg);
  const [B, Q] = [image_features.shape[0], query_tokens.shape[1]];
  return tidy(() => {
    const found: Tensor4D[] = [];
    let x = tile(layerNorm(p.layernorm, query_tokens, cfg.layer_norm_eps), [B, 1, 1]); // [B, Q, D]
    for (const layer of p.encoder.layer) {
      const queries = attend(layer.attention, x, x, cfg, undefined);
      if (layer.crossattention) found.push(weightsOf(layer.crossattention, queries, image_features, cfg));
      x = afterAttention(layer, queries, { Q, image: image_features }, cfg);
    }
    return found;
  });
}

/** softmax(q·kᵀ / √d) of x [B, Q, D] to `source` [B, N, E] → [B, H, Q, N], one head after the other. */
function weightsOf(p: QFormerAttention, x: Tensor3D, source: Tensor3D, cfg: QFormerConfig): Tensor4D {
  const H = cfg.num_attention_heads;
  const [B, Q, D] = x.shape;
  const [N, d] = [source.shape[1], D / H];
  const q = linear(p.attention.query, x);
  const k = linear(p.attention.key, source);
  const head = (of: Tensor3D, b: number, h: number, rows: number) =>
    reshape<Tensor2D>(slice(of, [b, 0, h * d], [1, rows, d]), [rows, d]);
  const scores = Array.from({ length: B * H }, (_, i) => {
    const [b, h] = [Math.floor(i / H), i % H];
    return linear({ weight: head(k, b, h, N) }, head(q, b, h, Q)); // [Q, N]
  });
  return softmax(mul(reshape<Tensor4D>(concat(scores, 0), [B, H, Q, N]), tensor([d ** -0.5], [1])));
}

/** What a layer reads beside its rows, of which the first Q are queries. */
interface Context {
  Q: number;
  /** [B, N, E]; absent without queries */
  image?: Tensor3D;
  /** absent without texts */
  mask?: Mask;
}

/** What rows see of each other. On the host, since layers may run again in the backward pass. */
interface Mask {
  /** [B, Q + T]: 0 for padding. */
  keys: Float32Array;
  /** The first so many rows see only each other, and each later one those before it. */
  queriesAlone?: number;
}

/** All layers, from the normalised rows [B, Q + T, D], which it disposes of. */
function layers(
  p: QFormerModel,
  rows: Tensor3D,
  context: Context,
  cfg: QFormerConfig,
  o: StageOptions,
): Tensor3D {
  let x = dropout(rows, cfg.hidden_dropout_prob, site(o.dropout, 'embeddings'));
  o.tap?.('hidden_states.0', x);
  p.encoder.layer.forEach((layer, i) => {
    const key = site(o.dropout, i);
    const run = (h: Tensor3D, image?: Tensor3D) => block(layer, h, { ...context, image }, cfg, key);
    const inputs = context.image ? [x, context.image] : [x];
    const y = o.checkpoint ? checkpoint(run, inputs, layer) : tidy(() => run(x, context.image));
    if (!o.tap) dispose(x);
    x = y;
    o.tap?.(`hidden_states.${i + 1}`, x);
  });
  return x;
}

/** x [B, Q + T, D] → the same: self-attention; for the queries cross-attention, if the layer has it; feed-forward. */
function block(p: QFormerLayer, x: Tensor3D, context: Context, cfg: QFormerConfig, key?: Key): Tensor3D {
  const attended = attend(p.attention, x, x, cfg, site(key, 'attention'), context.mask);
  return afterAttention(p, attended, context, cfg, key);
}

/** What follows self-attention in a block. */
function afterAttention(
  p: QFormerLayer,
  x: Tensor3D,
  { Q, image }: Context,
  cfg: QFormerConfig,
  key?: Key,
): Tensor3D {
  const [B, rows, D] = x.shape;
  const parts: Tensor3D[] = [];
  if (Q > 0) {
    let queries = Q < rows ? slice(x, [0, 0, 0], [B, Q, D]) : x;
    if (p.crossattention)
      queries = attend(p.crossattention, queries, image!, cfg, site(key, 'crossattention'));
    const h = activatedLinear('gelu', p.intermediate_query.dense, queries, site(key, 'intermediate_query')); // [B, Q, F]
    parts.push(output(p.output_query, h, queries, cfg, site(key, 'output_query')));
  }
  if (Q < rows) {
    const words = Q > 0 ? slice(x, [0, Q, 0], [B, rows - Q, D]) : x;
    const h = activatedLinear('gelu', p.intermediate!.dense, words, site(key, 'intermediate')); // [B, T, F]
    parts.push(output(p.output!, h, words, cfg, site(key, 'output')));
  }
  return parts.length > 1 ? concat(parts, 1) : parts[0];
}

/** Attention of x [B, Q, D] to `source` [B, Q, D] or [B, N, E], with its output projection → [B, Q, D]. */
function attend(
  p: QFormerAttention,
  x: Tensor3D,
  source: Tensor3D,
  cfg: QFormerConfig,
  key: Key | undefined,
  mask?: Mask,
): Tensor3D {
  const { num_attention_heads: numHeads, attention_probs_dropout_prob: rate } = cfg;
  const q = linear(p.attention.query, x, site(key, 'query')); // [B, Q, D]
  const k = linear(p.attention.key, source, site(key, 'key')); // [B, Q or N, D]
  const v = linear(p.attention.value, source, site(key, 'value')); // [B, Q or N, D]
  const [B, rows] = source.shape;
  const keyMask = mask && tensor<Tensor2D>(mask.keys, [B, rows]);
  const bias = mask?.queriesAlone === undefined ? undefined : later(mask.queriesAlone, rows, numHeads);
  const attended = attention(q, k, v, {
    numHeads,
    keyMask,
    bias,
    dropout: { rate, key: site(key, 'probs') },
  });
  return output(p.output, attended, x, cfg, site(key, 'output'));
}

/** Hides from each row what `queriesAlone` excludes: [1, H, rows, rows], with LAVIS's number, of which exp is 0. */
function later(queries: number, rows: number, heads: number): Tensor4D {
  const values = Float32Array.from({ length: heads * rows * rows }, (_, i) => {
    const [row, column] = [Math.floor(i / rows) % rows, i % rows];
    return column >= queries && column > row ? -10_000 : 0;
  });
  return tensor<Tensor4D>(values, [1, heads, rows, rows]);
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

function checkTexts({ embeds, mask }: QFormerTexts, cfg: QFormerConfig, B: number): void {
  const { hidden_size: D } = cfg;
  if (!cfg.use_qformer_text_input)
    throw new Error('qformer_config.use_qformer_text_input: expected true to read texts, found false');
  if (embeds.rank !== 3 || embeds.shape[0] !== B || embeds.shape[2] !== D)
    throw new Error(`texts: expected embeds [${B}, T, ${D}] (hidden_size), found [${embeds.shape}]`);
  if (mask.length !== B * embeds.shape[1])
    throw new Error(`texts: expected a mask of ${B} × ${embeds.shape[1]} values, found ${mask.length}`);
}

/** Name and shape of every tensor; `prefix` goes before each name (`qformer.` in a BLIP-2 checkpoint). */
export function qformerWeights(cfg: QFormerConfig, prefix = ''): WeightTable {
  const { hidden_size: D, intermediate_size: F, encoder_hidden_size: E, use_qformer_text_input: reads } = cfg;
  const attn = (name: string, source: number) => [
    ...linearShapes(`${name}.attention.query`, D, D),
    ...linearShapes(`${name}.attention.key`, source, D),
    ...linearShapes(`${name}.attention.value`, source, D),
    ...linearShapes(`${name}.output.dense`, D, D),
    ...layerNormShapes(`${name}.output.LayerNorm`, D),
  ];
  const forward = (at: string, suffix: string) => [
    ...linearShapes(`${at}.intermediate${suffix}.dense`, D, F),
    ...linearShapes(`${at}.output${suffix}.dense`, F, D),
    ...layerNormShapes(`${at}.output${suffix}.LayerNorm`, D),
  ];
  const layer = (i: number) => {
    const at = `encoder.layer.${i}`;
    return [
      ...attn(`${at}.attention`, D),
      ...(i % cfg.cross_attention_frequency === 0 ? attn(`${at}.crossattention`, E) : []),
      ...(reads ? forward(at, '') : []),
      ...forward(at, '_query'),
    ];
  };
  const words: WeightTable = cfg.words
    ? [
        ['embeddings.word_embeddings.weight', [cfg.words.vocab_size, D]],
        ['embeddings.position_embeddings.weight', [cfg.words.max_position_embeddings, D]],
      ]
    : [];
  const table = [
    ...words,
    ...layerNormShapes(cfg.words ? 'embeddings.layernorm' : 'layernorm', D),
    ...Array.from({ length: cfg.num_hidden_layers }, (_, i) => layer(i)).flat(),
  ];
  return table.map(([name, shape]) => [prefix + name, shape]);
}
