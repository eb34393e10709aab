/** T5 as a language model for BLIP-2. Reference: `T5ForConditionalGeneration` of transformers 5. */
import {
  dispose,
  gatherRows,
  joinCached,
  keep,
  linearCrossEntropy,
  mergePages,
  pagedAttention,
  pickCached,
  reshape,
  rmsNorm,
  site,
  tidy,
  transpose,
} from '@blip2/nn';
import type {
  CachedRows,
  CachePage,
  EmbeddedRows,
  Embedding,
  KvPage,
  LabelledRows,
  LanguageModel,
  StageOptions,
  Tensor2D,
  Tensor3D,
  Tensor4D,
} from '@blip2/nn';
import { parseT5Config } from './config';
import type { T5Config } from './config';
import { crossAttention, feedForward, keysAndValues, selfAttention } from './layer';
import type { Attend, AttendTo } from './layer';
import { bucketOf, positionBias } from './position-bias';
import {
  biasTable,
  common,
  decode,
  embedTargets,
  embedTokens,
  encode,
  headInput,
  keyMask,
  lmHead,
  lmLogits,
  t5Weights,
} from './t5';
import type { T5Model } from './t5';

/** The state of generation between two tokens. */
export interface T5State {
  /** Image and prompt of each row, which its decoder reads. */
  cross: CachedRows;
  /** The decoder's positions so far, one page for each. */
  self: CachedRows;
}

export const t5: LanguageModel<T5Model, T5Config, T5State> = {
  rows: 'seq2seq',
  lora_targets: ['q', 'v'],
  vqa_prompt: 'Question: {} Short answer:', // section 4.1
  parse: parseT5Config,
  weights: t5Weights,
  ties: ({ tie_word_embeddings }, prefix) =>
    ['encoder.embed_tokens', 'decoder.embed_tokens', ...(tie_word_embeddings ? ['lm_head'] : [])].map(
      (name) => ({
        tensor: `${prefix}shared.weight`,
        alias: `${prefix}${name}.weight`,
      }),
    ),
  pinned: ({ scale_decoder_outputs }) => ({ scale_decoder_outputs }),
  embed: embedTokens,
  head: lmHead,
  logits: (p, cfg, x, rows, o) => lmLogits(p, targetStates(p, cfg, x, rows, o), cfg),
  loss,
  start,
  step,
  join: (states) => ({
    cross: joinCached(states.map(({ cross }) => cross)),
    self: joinCached(states.map(({ self }) => self)),
  }),
  free: ({ cross, self }) => dispose([...cross.pages, ...self.pages].map(({ layers }) => layers)),
};

/** The decoder's states at the C target rows: inputs_embeds [B, T, D] → [C, U, D]. */
function targetStates(
  p: T5Model,
  cfg: T5Config,
  inputs_embeds: Tensor3D,
  { attention_mask, labels, prompts, shape: [B] }: EmbeddedRows & Pick<LabelledRows, 'prompts'>,
  { dropout, ...o }: StageOptions,
): Tensor3D {
  if (!labels)
    throw new Error('t5: expected labels, the target rows [B, U], which the decoder reads; found none');
  const C = prompts?.length ?? B;
  const encoded = encode(p, inputs_embeds, cfg, { ...o, attention_mask, dropout: site(dropout, 'encoder') });
  const ids = embedTargets(p, shiftedRight(labels, C, cfg), [C, labels.length / C]);
  const options = { ...o, attention_mask, prompts, dropout: site(dropout, 'decoder') };
  return decode(p, ids, encoded, cfg, options);
}

/** The decoder's input: each row behind the start token, without its last label; pads where nothing is labelled. */
function shiftedRight(labels: Int32Array, C: number, cfg: T5Config): Int32Array {
  const U = labels.length / C;
  return labels.map((_, i) => {
    if (i % U === 0) return cfg.decoder_start_token_id;
    return labels[i - 1] < 0 ? cfg.pad_token_id : labels[i - 1];
  });
}

/** The loss; only labelled positions pass through the vocabulary matmul. */
function loss(
  p: T5Model,
  cfg: T5Config,
  inputs_embeds: Tensor2D,
  rows: LabelledRows,
  { label_smoothing, ...o }: StageOptions & { label_smoothing?: number },
) {
  const [B, T] = rows.shape;
  const x = reshape<Tensor3D>(inputs_embeds, [B, T, cfg.hidden_size]);
  const hidden = targetStates(p, cfg, x, rows, o); // [C, U, D]
  const labelled = Int32Array.from([...rows.labels.keys()].filter((i) => rows.labels[i] >= 0));
  const flat = reshape<Tensor2D>(hidden, [rows.labels.length, cfg.hidden_size]);
  const some = headInput(gatherRows(flat, labelled), cfg); // [M, D]
  const labels = labelled.map((i) => rows.labels[i]);
  return linearCrossEntropy(lmHead(p), some, labels, label_smoothing);
}

function start(p: T5Model, cfg: T5Config, inputs_embeds: Tensor3D, attention_mask: Int32Array) {
  const [B] = inputs_embeds.shape;
  const cross = tidy(() => {
    const encoded = encode(p, inputs_embeds, cfg, { attention_mask });
    return p.decoder.block.map(({ layer }) => keysAndValues(layer[1].EncDecAttention, encoded, undefined));
  });
  cross.forEach(({ k, v }) => [k, v].forEach(keep));
  const first = new Int32Array(B).fill(cfg.decoder_start_token_id);
  const read = { pages: [{ layers: cross }], seen: attention_mask };
  return advance(p, cfg, { cross: read, self: { pages: [], seen: new Int32Array(0) } }, first);
}

function step(p: T5Model, cfg: T5Config, { cross, self }: T5State, ids: Int32Array, from: Int32Array) {
  return advance(p, cfg, { cross: pickCached(cross, from), self: mergePages(pickCached(self, from)) }, ids);
}

/** Appends ids [B] → scores [B, V] of the next token. */
function advance(
  p: T5Model,
  cfg: T5Config,
  { cross, self }: T5State,
  ids: Int32Array,
): { state: T5State; scores: Tensor2D } {
  const B = ids.length;
  const [seen, layers] = [withOneMore(self.seen, B), [] as CachePage['layers'][number][]];
  const scores = tidy(() => {
    const bias = targetBias(biasTable(p.decoder), seen, B, cfg);
    const [mask, crossMask] = [keyMask(seen, B), keyMask(cross.seen, B)];
    let x = embedTargets(p, ids, [B, 1]);
    p.decoder.block.forEach(({ layer: [own, other, ff] }, i) => {
      const attend: Attend = (q, k, v) =>
        pagedAttention(q, [...layerPages(self, i), { k, v }], { ...common(cfg), bias, keyMask: mask });
      const { x: y, k, v } = selfAttention(own, x, cfg, attend, undefined);
      layers.push({ k: keep(k), v: keep(v) });
      const look: AttendTo = (q) =>
        pagedAttention(q, layerPages(cross, i), { ...common(cfg), keyMask: crossMask });
      x = feedForward(ff, crossAttention(other, y, cfg, look, undefined), cfg, undefined);
    });
    const hidden = rmsNorm(p.decoder.final_layer_norm, x, cfg.layer_norm_epsilon);
    return lmLogits(p, reshape<Tensor2D>(hidden, [B, cfg.hidden_size]), cfg);
  });
  return { state: { cross, self: { pages: [...self.pages, { layers }], seen } }, scores };
}

const layerPages = ({ pages }: CachedRows, i: number): KvPage[] =>
  pages.map(({ rows, layers }) => ({ ...layers[i], rows }));

/** One more position, which every row sees: [B, n] → [B, n + 1]. */
function withOneMore(seen: Int32Array, B: number): Int32Array {
  const n = seen.length / B;
  const more = new Int32Array(B * (n + 1)).fill(1);
  for (let b = 0; b < B; b++) more.set(seen.subarray(b * n, (b + 1) * n), b * (n + 1));
  return more;
}

/** The bias of each row's last position, [1 or B, H, 1, Tk]; rows that began at different times have their own distances. */
function targetBias(table: Embedding, seen: Int32Array, B: number, cfg: T5Config): Tensor4D {
  const Tk = seen.length / B;
  if (!seen.includes(0)) return positionBias(table, [1, Tk], false, cfg);
  const buckets = new Int32Array(B * Tk);
  for (let b = 0; b < B; b++)
    for (let j = Tk - 1, distance = 0; j >= 0; j--)
      if (seen[b * Tk + j]) buckets[b * Tk + j] = bucketOf(distance--, false, cfg);
  const biases = gatherRows(table.weight, buckets); // [B·Tk, H]
  const H = biases.shape[1];
  return reshape(transpose<Tensor3D>(reshape(biases, [B, Tk, H]), [0, 2, 1]), [B, H, 1, Tk]);
}
