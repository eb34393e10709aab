/** T5 as a language model for BLIP-2. Reference: `T5ForConditionalGeneration` of transformers 5. */
import {
  dispose,
  gatherRows,
  keep,
  linearCrossEntropy,
  pagedAttention,
  reshape,
  rmsNorm,
  site,
  tidy,
} from '@blip2/nn';
import type {
  EmbeddedRows,
  KvPage,
  LabelledRows,
  LanguageModel,
  StageOptions,
  Tensor2D,
  Tensor3D,
} from '@blip2/nn';
import { parseT5Config } from './config';
import type { T5Config } from './config';
import { crossAttention, feedForward, keysAndValues, selfAttention } from './layer';
import { positionBias } from './position-bias';
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
  pickRows,
  t5Weights,
} from './t5';
import type { T5Model } from './t5';

/** The state of generation between two tokens. R rows that were started, B rows now. */
export interface T5State {
  /** For each block, keys and values of image and prompt, [R, T, I]. */
  cross: { k: Tensor3D; v: Tensor3D }[];
  /** `[R, T]` */
  attention_mask: Int32Array;
  /** `[B]`: the started row of each row. */
  rows: Int32Array;
  /** The decoder's positions so far, one page for each: for each block, [rows of the page, 1, I]. */
  pages: { rows?: Int32Array; blocks: { k: Tensor3D; v: Tensor3D }[] }[];
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
  logits: (p, cfg, x, rows, o) => lmLogits(p, targetStates(p, cfg, x, rows, o), cfg),
  loss,
  start,
  step,
  free: ({ cross, pages }) => dispose([...cross, ...pages.flatMap(({ blocks }) => blocks)]),
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
  const rows = Int32Array.from({ length: B }, (_, b) => b);
  const first = new Int32Array(B).fill(cfg.decoder_start_token_id);
  return advance(p, cfg, { cross, attention_mask, rows, pages: [] }, first);
}

function step(p: T5Model, cfg: T5Config, state: T5State, ids: Int32Array, from: Int32Array) {
  const pick = (rows: Int32Array | undefined) => (rows ? from.map((row) => rows[row]) : from);
  const pages = state.pages.map(({ rows, blocks }) => ({ rows: pick(rows), blocks }));
  return advance(p, cfg, { ...state, rows: pick(state.rows), pages }, ids);
}

/** Appends ids [B] → scores [B, V] of the next token. */
function advance(
  p: T5Model,
  cfg: T5Config,
  past: T5State,
  ids: Int32Array,
): { state: T5State; scores: Tensor2D } {
  const B = ids.length;
  const blocks: T5State['pages'][number]['blocks'] = [];
  const scores = tidy(() => {
    const bias = positionBias(biasTable(p.decoder), [1, past.pages.length + 1], false, cfg);
    const T = past.attention_mask.length / past.cross[0].k.shape[0];
    const crossMask = keyMask(pickRows(past.attention_mask, T, past.rows), B);
    let x = embedTargets(p, ids, [B, 1]);
    p.decoder.block.forEach(({ layer: [self, cross, ff] }, i) => {
      const pages: KvPage[] = past.pages.map(({ rows, blocks }) => ({ ...blocks[i], rows }));
      const {
        x: y,
        k,
        v,
      } = selfAttention(
        self,
        x,
        cfg,
        (q, k, v) => pagedAttention(q, [...pages, { k, v }], { ...common(cfg), bias }),
        undefined,
      );
      blocks.push({ k: keep(k), v: keep(v) });
      const look = (q: Tensor3D) =>
        pagedAttention(q, [{ ...past.cross[i], rows: past.rows }], { ...common(cfg), keyMask: crossMask });
      x = feedForward(ff, crossAttention(cross, y, cfg, look, undefined), cfg, undefined);
    });
    return lmLogits(
      p,
      reshape<Tensor2D>(rmsNorm(p.decoder.final_layer_norm, x, cfg.layer_norm_epsilon), [B, cfg.hidden_size]),
      cfg,
    );
  });
  return { state: { ...past, pages: [...past.pages, { blocks }] }, scores };
}
