// OPT, the causal language model of BLIP-2's OPT checkpoints (Zhang et al. 2022), with a functional KV cache.
// Reference: transformers 5, `OPTForCausalLM` (models/opt/modeling_opt.py).
// B rows, T new positions, K = past + T keys, D hidden size, E embedding width (word_embed_proj_dim, mostly D), F ffn, V vocabulary.
import {
  add,
  attention,
  checkpoint,
  dispose,
  embedIds,
  embedding,
  isObserved,
  layerNormShapes,
  linear,
  linearShapes,
  pagedAttention,
  preciseLinear,
  site,
  tensor,
  tidy,
} from '@blip2/nn';
import type {
  Embedding,
  KvPage,
  LayerNorm,
  Linear,
  StageOptions,
  Tensor,
  Tensor2D,
  Tensor3D,
  WeightTable,
} from '@blip2/nn';
import type { OptConfig } from './config';
import { checkCache, layerPages, pickRows } from './kv-cache';
import type { CachePage, KvCache } from './kv-cache';
import { block, fusedLayers, norm } from './layer';
import type { LayerContext, OptLayer } from './layer';

/** Row of position 0 in the position table; padding uses row 1. */
export const POSITION_OFFSET = 2;

/** The parameters under `language_model.` of a BLIP-2 checkpoint. Without lm_head, `embed_tokens` is used (tied). */
export interface OptModel {
  model: {
    decoder: {
      embed_tokens: Embedding; // [V, E]
      embed_positions: Embedding; // [max_position_embeddings + 2, D]
      final_layer_norm?: LayerNorm; // [D], with do_layer_norm_before
      layers: OptLayer[];
      project_in?: Linear; // [D, E], only when E ≠ D
      project_out?: Linear; // [E, D], only when E ≠ D
    };
  };
  lm_head?: { weight: Tensor2D /* [V, E] */ };
}

export interface DecodeOptions extends StageOptions {
  /** 1 for tokens, 0 for padding (on either side), row-major [B, past + T]: includes the cached positions. */
  attention_mask: Int32Array;
  /** The positions before, from the result of an earlier call. */
  cache?: KvCache;
  /** Row b continues row cacheRows[b] of the cache; rows may be repeated or dropped (beam search). By default, row b. */
  cacheRows?: Int32Array;
  /** Also return a cache that includes these positions. Checkpointing is off when a cache is used. */
  useCache?: boolean;
  /** The flattened [B·T] positions to return; the last layer computes the others only up to attention. */
  rows?: Int32Array;
}

/** Token embeddings of ids (row-major [B, T]) → [B, T, E]. @throws Error on an id outside the vocabulary */
export function embedTokens(p: OptModel, ids: Int32Array, shape: [B: number, T: number]): Tensor3D {
  return embedIds(p.model.decoder.embed_tokens, ids, shape);
}

/**
 * Runs the decoder over inputs_embeds [B, T, E] → hidden [B, T, E], transformers' `last_hidden_state`, the input of `lmLogits`;
 * with M `rows`, hidden [1, M, E]. Positions are counted from the attention mask, so padding on either side does not change the
 * results for tokens; those for padding are meaningless. `tap` gets `hidden_states.0` … `hidden_states.L` (the result).
 * @throws Error if embeddings, mask, cache, rows or layers do not fit together, or a row is too long
 */
export function decode(
  p: OptModel,
  inputs_embeds: Tensor3D,
  cfg: OptConfig,
  o: DecodeOptions,
): { hidden: Tensor3D; cache?: KvCache } {
  const { layers, embed_positions, project_in, project_out, final_layer_norm } = p.model.decoder;
  const past = o.cache?.length ?? 0;
  check(p, inputs_embeds, cfg, o, past);
  const [B, T] = inputs_embeds.shape;
  const K = past + T;

  const positions = embedding(embed_positions, positionRows(o.attention_mask, B, K, past, cfg), [B, T]); // [B, T, D]
  let x = add(project_in ? linear(project_in, inputs_embeds) : inputs_embeds, positions); // [B, T, D]
  o.tap?.('hidden_states.0', x);

  const pages = o.cache ? pickRows(o.cache, o.cacheRows) : [];
  const keyMask = keyMaskOf(o.attention_mask, [B, K]);
  const given = { ...o, pages, keyMask };
  const first = inOneKernel(layers, x, cfg, given);
  const made = eachLayer(layers, first.x, cfg, given, first.layers);
  x = made.x;
  if (final_layer_norm) x = norm(final_layer_norm, x);
  if (project_out) x = linear(project_out, x); // [B, T, E]
  o.tap?.(`hidden_states.${layers.length}`, x);
  return {
    hidden: x,
    ...(o.useCache && { cache: { length: K, pages: [...pages, { layers: made.layers }] } }),
  };
}

/** Makes the mask [B, K] of the keys that may be seen; undefined if that is all of them. */
function keyMaskOf(mask: Int32Array, shape: [B: number, K: number]): (() => Tensor2D) | undefined {
  return mask.includes(0) ? () => tensor<Tensor2D>(Float32Array.from(mask), shape) : undefined;
}

interface LayerOptions extends DecodeOptions {
  pages: readonly CachePage[];
  keyMask?: () => Tensor2D;
}

/** The output of the first layers, and the keys and values of each. */
interface MadeLayers {
  x: Tensor3D;
  layers: { k: Tensor3D; v: Tensor3D }[];
}

/** All layers in one kernel, or none if something needs them one by one. With `rows`, the last layer is left to `eachLayer`. */
function inOneKernel(
  layers: readonly OptLayer[],
  x: Tensor3D,
  cfg: OptConfig,
  { tap, dropout, rows, useCache, pages, keyMask }: LayerOptions,
): MadeLayers {
  const count = rows ? layers.length - 1 : layers.length;
  const made =
    tap || dropout || isObserved() || !useCache || count === 0
      ? undefined
      : tidy(() => fusedLayers(layers, count, x, cfg, { pages, keyMask: keyMask?.() }));
  if (!made) return { x, layers: [] };
  dispose(x);
  return made;
}

/** The layers after `done` one by one: x [B, T, D], which is disposed of unless it is tapped → the output of the last one. */
function eachLayer(
  layers: readonly OptLayer[],
  x: Tensor3D,
  cfg: OptConfig,
  { pages, keyMask, ...o }: LayerOptions,
  done: MadeLayers['layers'],
): MadeLayers {
  if (done.length === layers.length) return { x, layers: done };
  const recompute = o.checkpoint && !o.cache && !o.useCache;
  // When layers are recomputed, each makes its mask: tensors from outside may be disposed of before the backward pass.
  const shared = recompute ? undefined : keyMask?.();
  const mask = () => (recompute ? keyMask?.() : shared);
  const own = [...done];
  // Frees the input of a layer as soon as the layer has run; the tape keeps its own references.
  const advance = (y: Tensor3D) => {
    if (!o.tap) dispose(x);
    x = y;
  };
  layers.forEach((layer, i) => {
    if (i < done.length) return;
    const last = i + 1 === layers.length;
    const attend = attendTo(layerPages(pages, i), cfg, mask);
    const context = { attend, key: site(o.dropout, i), rows: last ? o.rows : undefined };
    if (recompute) {
      advance(checkpoint((h: Tensor3D) => block(layer, h, cfg, context).x, [x], layer));
    } else {
      const step = tidy(() => {
        const { x: y, ...kv } = block(layer, x, cfg, context);
        return o.useCache ? { y, kv } : { y };
      });
      advance(step.y);
      if (step.kv) own.push(step.kv);
    }
    if (!last) o.tap?.(`hidden_states.${i + 1}`, x);
  });
  return { x, layers: own };
}

/** Attention of new positions to those of `past` and to themselves. */
function attendTo(
  past: readonly KvPage[],
  { num_attention_heads: numHeads }: OptConfig,
  mask: () => Tensor2D | undefined,
): LayerContext<Tensor3D>['attend'] {
  return (q, k, v, dropout) => {
    const common = { numHeads, causal: true, keyMask: mask() };
    return past.length > 0
      ? pagedAttention(q, [...past, { k, v }], common)
      : attention(q, k, v, { ...common, dropout });
  };
}

/** The output layer [V, E], without bias: `lm_head`, or else `embed_tokens` (tied). */
export function lmHead(p: OptModel): Linear {
  return p.lm_head ?? { weight: p.model.decoder.embed_tokens.weight };
}

/** Scores over the vocabulary: hidden [..., E] → [..., V]. */
export function lmLogits<T extends Tensor>(p: OptModel, hidden: T): T {
  return preciseLinear(lmHead(p), hidden);
}

/** Row of the position table for each new position, [B·T]: 2, 3, … for the tokens of a row, 1 for padding. */
function positionRows(mask: Int32Array, B: number, K: number, past: number, cfg: OptConfig): Int32Array {
  const T = K - past;
  const rows = new Int32Array(B * T);
  for (let b = 0; b < B; b++) {
    let seen = 0;
    for (let j = 0; j < K; j++) {
      const on = mask[b * K + j];
      seen += on;
      if (j >= past) rows[b * T + j - past] = on * seen - 1 + POSITION_OFFSET;
    }
    if (seen > cfg.max_position_embeddings)
      throw new Error(
        `decode: expected at most ${cfg.max_position_embeddings} positions (max_position_embeddings), found ${seen} in row ${b}; ` +
          'shorten the text or generate fewer tokens',
      );
  }
  return rows;
}

function check(p: OptModel, x: Tensor3D, cfg: OptConfig, o: DecodeOptions, past: number): void {
  const E = cfg.word_embed_proj_dim;
  if (x.rank !== 3 || x.shape[2] !== E)
    throw new Error(`decode: expected inputs_embeds [B, T, ${E}] (word_embed_proj_dim), found [${x.shape}]`);
  const [B, T] = x.shape;
  const { layers, project_in, project_out, final_layer_norm } = p.model.decoder;
  if (o.attention_mask.length !== B * (past + T))
    throw new Error(
      `decode: expected attention_mask [${B}, ${past + T}] (${past} cached + ${T} new positions), ` +
        `found ${o.attention_mask.length} values`,
    );
  const odd = o.attention_mask.find((m) => m !== 0 && m !== 1);
  if (odd !== undefined) throw new Error(`decode: expected attention_mask of 0 and 1, found ${odd}`);
  const outside = o.rows?.find((row) => row < 0 || row >= B * T);
  if (outside !== undefined || o.rows?.length === 0)
    throw new Error(`decode: expected at least one of the rows 0 … ${B * T - 1}, found ${outside ?? 'none'}`);
  if (layers.length !== cfg.num_hidden_layers)
    throw new Error(
      `decode: expected ${cfg.num_hidden_layers} layers (num_hidden_layers), found ${layers.length}`,
    );
  if (o.cache && o.dropout)
    throw new Error('decode: expected a cache (inference) or dropout (training), found both');
  if (o.cache) checkCache(o.cache, o.cacheRows, [layers.length, B]);
  const parts = { final_layer_norm, project_in, project_out };
  for (const [name, expected] of Object.entries(optionalParts(cfg)))
    if (expected !== (parts[name as keyof typeof parts] !== undefined))
      throw new Error(
        `decode: expected ${expected ? 'a' : 'no'} model.decoder.${name} by the config, found ${expected ? 'none' : 'one'}`,
      );
}

/** Whether a config has each optional part of the decoder. */
function optionalParts(cfg: OptConfig) {
  const projected = cfg.word_embed_proj_dim !== cfg.hidden_size;
  return {
    final_layer_norm: cfg.do_layer_norm_before && !cfg._remove_final_layer_norm,
    project_in: projected,
    project_out: projected,
  };
}

/**
 * Name and shape of every tensor; `prefix` goes before each name (`language_model.` in a BLIP-2 checkpoint). `lm_head.weight` is
 * included only without tie_word_embeddings; a tied one is the same tensor as `embed_tokens.weight`.
 */
export function optWeights(cfg: OptConfig, prefix = ''): WeightTable {
  const { hidden_size: D, word_embed_proj_dim: E, ffn_dim: F, vocab_size: V, enable_bias } = cfg;
  const has = optionalParts(cfg);
  const layer = (i: number) => {
    const at = `model.decoder.layers.${i}`;
    return [
      ...['k_proj', 'v_proj', 'q_proj', 'out_proj'].flatMap((n) =>
        linearShapes(`${at}.self_attn.${n}`, D, D, enable_bias),
      ),
      ...layerNormShapes(`${at}.self_attn_layer_norm`, D),
      ...linearShapes(`${at}.fc1`, D, F, enable_bias),
      ...linearShapes(`${at}.fc2`, F, D, enable_bias),
      ...layerNormShapes(`${at}.final_layer_norm`, D),
    ];
  };
  const table: WeightTable = [
    ['model.decoder.embed_tokens.weight', [V, E]],
    ['model.decoder.embed_positions.weight', [cfg.max_position_embeddings + POSITION_OFFSET, D]],
  ];
  if (has.project_out) table.push(['model.decoder.project_out.weight', [E, D]]);
  if (has.project_in) table.push(['model.decoder.project_in.weight', [D, E]]);
  if (has.final_layer_norm) table.push(...layerNormShapes('model.decoder.final_layer_norm', D));
  table.push(...Array.from({ length: cfg.num_hidden_layers }, (_, i) => layer(i)).flat());
  if (!cfg.tie_word_embeddings) table.push(['lm_head.weight', [V, E]]);
  return table.map(([name, shape]) => [prefix + name, shape]);
}
