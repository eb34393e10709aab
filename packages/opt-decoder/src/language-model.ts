/** OPT as a language model for BLIP-2. Reference: `OPTForCausalLM` of transformers 5. */
import {
  dispose,
  joinCached,
  keep,
  linearCrossEntropy,
  mergePages,
  pickCached,
  reshape,
  slice,
  tidy,
} from '@blip2/nn';
import type { CachedRows, LanguageModel, PackedBatch, StageOptions, Tensor2D, Tensor3D } from '@blip2/nn';
import { parseOptConfig } from './config';
import type { OptConfig } from './config';
import type { KvCache } from './kv-cache';
import { decode, embedTokens, lmHead, lmLogits, optWeights } from './opt';
import type { OptModel } from './opt';
import { decodePacked, packedHidden } from './packed';

/** The state of generation between two tokens. */
export interface OptState {
  cache: KvCache;
  /** `[B, length of the cache]`: 1 for tokens, 0 for padding and for positions of other rows. */
  attention_mask: Int32Array;
}

export const opt: LanguageModel<OptModel, OptConfig, OptState> = {
  rows: 'causal',
  lora_targets: ['q_proj', 'k_proj', 'v_proj', 'out_proj'],
  parse: parseOptConfig,
  weights: optWeights,
  ties: ({ tie_word_embeddings }, prefix) =>
    tie_word_embeddings
      ? [{ tensor: `${prefix}model.decoder.embed_tokens.weight`, alias: `${prefix}lm_head.weight` }]
      : [],
  head: lmHead,
  embed: embedTokens,
  logits: (p, cfg, x, { attention_mask }, o) =>
    lmLogits(p, decode(p, x, cfg, { ...o, attention_mask }).hidden),
  loss,
  below: { layersBefore, hidden: packedHidden },
  start: (p, cfg, x, attention_mask) => advance(p, cfg, { attention_mask }, () => x),
  step,
  join: (states) => stateOf(joinCached(states.map(cachedRows))),
  free: ({ cache }) => cache.pages.forEach(({ layers }) => dispose(layers)),
  drafts: { extend, shorten },
};

/** The loss; only positions that predict a labelled token pass through the end of the last layer and the vocabulary matmul. */
function loss(
  p: OptModel,
  cfg: OptConfig,
  inputs_embeds: Tensor2D,
  { packing, labels, predictors, depth }: PackedBatch,
  { label_smoothing, ...o }: StageOptions & { label_smoothing?: number },
) {
  const hidden = decodePacked(p, inputs_embeds, cfg, { ...o, packing, from: depth, rows: predictors }); // [M, E]
  return linearCrossEntropy(lmHead(p), hidden, labels, label_smoothing);
}

/** The last layer runs for labelled positions only, so it always belongs to what comes after. */
function layersBefore({ num_hidden_layers: L }: OptConfig, name: string): number {
  const [, layer] = /^model\.decoder\.layers\.(\d+)\./.exec(name) ?? [];
  if (layer !== undefined) return Number(layer);
  return /^(model\.decoder\.(final_layer_norm|project_out)|lm_head)\b/.test(name) ? L - 1 : 0;
}

const cachedRows = ({ cache, attention_mask }: OptState): CachedRows => ({
  pages: cache.pages,
  seen: attention_mask,
});

function stateOf({ pages, seen }: CachedRows): OptState {
  const length = pages.reduce((sum, { layers: [{ k }] }) => sum + k.shape[1], 0);
  return { cache: { length, pages }, attention_mask: seen };
}

function step(p: OptModel, cfg: OptConfig, state: OptState, ids: Int32Array, from: Int32Array) {
  const { cache, attention_mask: seen } = stateOf(mergePages(pickCached(cachedRows(state), from)));
  const [K, B] = [cache.length, ids.length];
  const attention_mask = new Int32Array(B * (K + 1)).fill(1);
  for (let b = 0; b < B; b++) attention_mask.set(seen.subarray(b * K, (b + 1) * K), b * (K + 1));
  return advance(p, cfg, { attention_mask, cache }, () => embedTokens(p, ids, [B, 1]));
}

function extend(p: OptModel, cfg: OptConfig, { cache, attention_mask: seen }: OptState, ids: Int32Array) {
  const attention_mask = new Int32Array(seen.length + ids.length).fill(1);
  attention_mask.set(seen);
  return advance(p, cfg, { attention_mask, cache }, () => embedTokens(p, ids, [1, ids.length]), true);
}

function shorten({ cache: { length, pages }, attention_mask }: OptState, count: number): OptState {
  const { rows, layers } = pages.at(-1)!;
  const [B, T, D] = layers[0].k.shape;
  const first = (x: Tensor3D) => slice(x, [0, 0, 0], [B, T - count, D]);
  const last = { rows, layers: layers.map(({ k, v }) => ({ k: first(k), v: first(v) })) };
  dispose(layers);
  return {
    cache: { length: length - count, pages: [...pages.slice(0, -1), last] },
    attention_mask: attention_mask.slice(0, -count),
  };
}

/**
 * Runs the new positions `embeds` [B, T, D] after the cached ones → scores [B, V] of the token after the last position; with `every`, and one
 * row, [T, V] after each.
 */
function advance(
  p: OptModel,
  cfg: OptConfig,
  past: { attention_mask: Int32Array; cache?: KvCache },
  embeds: () => Tensor3D,
  every = false,
): { state: OptState; scores: Tensor2D } {
  let state: OptState | undefined;
  const scores = tidy(() => {
    const x = embeds();
    const [B, T, D] = x.shape;
    const rows = T > 1 && !every ? Int32Array.from({ length: B }, (_, b) => (b + 1) * T - 1) : undefined;
    const { hidden, cache } = decode(p, x, cfg, { ...past, useCache: true, rows });
    const scores = lmLogits(p, reshape<Tensor2D>(hidden, [hidden.size / D, D]));
    cache!.pages.at(-1)!.layers.forEach(({ k, v }) => [k, v].forEach(keep));
    state = { cache: cache!, attention_mask: past.attention_mask };
    return scores;
  });
  return { state: state!, scores };
}
