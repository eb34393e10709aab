// T5 1.1 (Raffel et al. 2020; Shazeer 2020), the encoder and decoder of BLIP-2's Flan-T5 checkpoints.
// Reference: transformers 5, `T5ForConditionalGeneration` (models/t5/modeling_t5.py).
// B rows, T positions of the encoder, U of the decoder, D hidden size, I = heads · d_kv, V vocabulary.
import {
  attention,
  checkpoint,
  dispose,
  dropout,
  embedIds,
  gatherRows,
  linearShapes,
  preciseLinear,
  rmsNorm,
  scale,
  site,
  tensor,
  tidy,
} from '@blip2/nn';
import type {
  Embedding,
  Key,
  Linear,
  RmsNorm,
  StageOptions,
  Tensor,
  Tensor2D,
  Tensor3D,
  Tensor4D,
  WeightTable,
} from '@blip2/nn';
import type { T5Config } from './config';
import { crossAttention, feedForward, keysAndValues, selfAttention } from './layer';
import type { Attend, DecoderBlock, EncoderBlock } from './layer';
import { positionBias } from './position-bias';

/** A stack of blocks with its norm. */
export interface Stack<Block> {
  block: Block[];
  final_layer_norm: RmsNorm; // [D]
}

/** The parameters under `language_model.` of a BLIP-2 checkpoint. Without lm_head, `shared` is used (tied). */
export interface T5Model {
  shared: Embedding; // [V, D]
  encoder: Stack<EncoderBlock>;
  /** An adapter that trains `shared` leaves the decoder its own embeddings. */
  decoder: Stack<DecoderBlock> & { embed_tokens?: Embedding };
  lm_head?: { weight: Tensor2D /* [V, D] */ };
}

export interface EncodeOptions extends StageOptions {
  /** 1 for tokens, 0 for padding (anywhere), row-major [B, T]. Pads count in distances, as in transformers. */
  attention_mask: Int32Array;
}

/** Token embeddings of ids (row-major [B, T]) → [B, T, D]. @throws Error on an id outside the vocabulary */
export function embedTokens(p: T5Model, ids: Int32Array, shape: [B: number, T: number]): Tensor3D {
  return embedIds(p.shared, ids, shape);
}

/** `embedTokens` for the decoder. */
export function embedTargets(p: T5Model, ids: Int32Array, shape: [B: number, U: number]): Tensor3D {
  return embedIds(p.decoder.embed_tokens ?? p.shared, ids, shape);
}

/** `attention_mask` as the mask of keys [B, T]; undefined if nothing is hidden. */
export function keyMask(attention_mask: Int32Array, B: number): Tensor2D | undefined {
  if (!attention_mask.includes(0)) return undefined;
  return tensor<Tensor2D>(Float32Array.from(attention_mask), [B, attention_mask.length / B]);
}

/**
 * Runs the encoder over inputs_embeds [B, T, D] → [B, T, D], transformers' `encoder_last_hidden_state`. `tap` gets
 * `encoder.hidden_states.0` … `encoder.hidden_states.L` (the result).
 * @throws Error if embeddings, mask or blocks do not fit the configuration
 */
export function encode(
  p: T5Model,
  inputs_embeds: Tensor3D,
  cfg: T5Config,
  { attention_mask, ...o }: EncodeOptions,
): Tensor3D {
  const [B, T] = checkInput('encode', inputs_embeds, cfg, attention_mask);
  checkDepth('encode', p.encoder.block, cfg.num_hidden_layers, 'num_layers');
  const bias = positionBias(biasTable(p.encoder), [T, T], true, cfg);
  const run: RunBlock<EncoderBlock> = ({ layer: [self, ff] }, x, [bias], key) => {
    const attend: Attend = (q, k, v, dropout) =>
      attention(q, k, v, {
        ...common(cfg),
        bias: bias as Tensor4D,
        keyMask: keyMask(attention_mask, B),
        dropout,
      });
    const { x: y } = selfAttention(self, x, cfg, attend, site(key, 'self'));
    return feedForward(ff, y, cfg, key);
  };
  return throughStack('encoder', p.encoder, inputs_embeds, [bias], cfg, o, run);
}

export interface DecodeOptions extends EncodeOptions {
  /** `[C]`: the row of `encoded` that each row of the decoder reads. Default: row c. */
  prompts?: Int32Array;
}

/**
 * Runs the decoder over inputs_embeds [C, U, D], each position seeing those before it and `encoded` [B, T, D] → [C, U, D], the input of
 * `lmLogits`. `tap` gets `decoder.hidden_states.0` … `decoder.hidden_states.L` (the result).
 * @throws Error if embeddings, mask or blocks do not fit the configuration
 */
export function decode(
  p: T5Model,
  inputs_embeds: Tensor3D,
  encoded: Tensor3D,
  cfg: T5Config,
  { attention_mask, prompts, ...o }: DecodeOptions,
): Tensor3D {
  const [B, T] = checkInput('decode', encoded, cfg, attention_mask);
  const [C, U] = checkInput('decode', inputs_embeds, cfg);
  if (C !== (prompts?.length ?? B))
    throw new Error(`decode: expected ${prompts?.length ?? B} rows as of the encoder, found ${C}`);
  const moved = prompts?.some((row, c) => row !== c) || C !== B ? prompts : undefined;
  const ofTargets = (x: Tensor3D) => (moved ? gatherRows(x, moved) : x);
  const mask = moved ? pickRows(attention_mask, T, moved) : attention_mask;
  checkDepth('decode', p.decoder.block, cfg.num_decoder_layers, 'num_decoder_layers');
  const bias = positionBias(biasTable(p.decoder), [U, U], false, cfg);
  const run: RunBlock<DecoderBlock> = ({ layer: [self, cross, ff] }, x, [bias, encoded], key) => {
    const attend: Attend = (q, k, v, dropout) =>
      attention(q, k, v, { ...common(cfg), causal: true, bias: bias as Tensor4D, dropout });
    const { x: y } = selfAttention(self, x, cfg, attend, site(key, 'self'));
    const at = site(key, 'cross');
    const { k, v } = keysAndValues(cross.EncDecAttention, encoded as Tensor3D, at);
    const look = (q: Tensor3D, dropout: { rate: number; key: Key | undefined }) =>
      attention(q, ofTargets(k), ofTargets(v), { ...common(cfg), keyMask: keyMask(mask, C), dropout });
    return feedForward(ff, crossAttention(cross, y, cfg, look, at), cfg, key);
  };
  return throughStack('decoder', p.decoder, inputs_embeds, [bias, encoded], cfg, o, run);
}

/** Rows of a row-major [B, T] host array. */
function pickRows(values: Int32Array, T: number, rows: Int32Array): Int32Array {
  const picked = new Int32Array(rows.length * T);
  rows.forEach((row, b) => picked.set(values.subarray(row * T, (row + 1) * T), b * T));
  return picked;
}

/** One block; `shared` are tensors that all blocks of the stack read. */
type RunBlock<Block> = (block: Block, x: Tensor3D, shared: Tensor[], key: Key | undefined) => Tensor3D;

function throughStack<Block extends object>(
  name: string,
  { block: blocks, final_layer_norm }: Stack<Block>,
  inputs_embeds: Tensor3D,
  shared: Tensor[],
  cfg: T5Config,
  { dropout: key, checkpoint: recompute, tap }: StageOptions,
  run: RunBlock<Block>,
): Tensor3D {
  let x = dropout(inputs_embeds, cfg.dropout_rate, site(key, 'embeds.dropout'));
  tap?.(`${name}.hidden_states.0`, x);
  blocks.forEach((block, i) => {
    const at = site(key, i);
    const y = recompute
      ? checkpoint((h: Tensor3D, ...more: Tensor[]) => run(block, h, more, at), [x, ...shared], block)
      : tidy(() => run(block, x, shared, at));
    if (i > 0 && !tap) dispose(x); // the tape keeps its own references
    x = y;
    if (i + 1 < blocks.length) tap?.(`${name}.hidden_states.${i + 1}`, x);
  });
  x = rmsNorm(final_layer_norm, x, cfg.layer_norm_epsilon);
  x = dropout(x, cfg.dropout_rate, site(key, 'final.dropout'));
  tap?.(`${name}.hidden_states.${blocks.length}`, x);
  return x;
}

/** T5 does not scale q·k: its initial weights do. */
export const common = (cfg: T5Config) => ({ numHeads: cfg.num_attention_heads, scale: 1 });

/** The table of relative positions, in block 0. @throws Error if there is none */
export function biasTable({ block }: T5Model['encoder'] | T5Model['decoder']): Embedding {
  const table = block[0]?.layer[0].SelfAttention.relative_attention_bias;
  if (table) return table;
  throw new Error('t5: expected layer.0.SelfAttention.relative_attention_bias in block 0, found none');
}

/** The output layer [V, D], without bias: `lm_head`, or else `shared` (tied). */
export function lmHead(p: T5Model): Linear {
  return p.lm_head ?? p.shared;
}

/** The decoder's states as the head reads them. */
export function headInput<X extends Tensor>(hidden: X, cfg: T5Config): X {
  return cfg.scale_decoder_outputs ? scale(hidden, cfg.hidden_size ** -0.5) : hidden;
}

/** Scores over the vocabulary: hidden [..., D] → [..., V]. */
export function lmLogits<X extends Tensor>(p: T5Model, hidden: X, cfg: T5Config): X {
  return preciseLinear(lmHead(p), headInput(hidden, cfg));
}

function checkInput(name: string, x: Tensor3D, cfg: T5Config, mask?: Int32Array): [B: number, T: number] {
  const [B, T, D] = x.shape;
  if (x.rank !== 3 || D !== cfg.hidden_size)
    throw new Error(`${name}: expected embeddings [B, T, ${cfg.hidden_size}] (d_model), found [${x.shape}]`);
  if (mask && mask.length !== B * T)
    throw new Error(`${name}: expected attention_mask [${B}, ${T}], found ${mask.length} values`);
  const odd = mask?.find((m) => m !== 0 && m !== 1);
  if (odd !== undefined) throw new Error(`${name}: expected attention_mask of 0 and 1, found ${odd}`);
  return [B, T];
}

function checkDepth(name: string, blocks: object[], expected: number, field: string): void {
  if (blocks.length === expected) return;
  throw new Error(`${name}: expected ${expected} blocks (${field}), found ${blocks.length}`);
}

/**
 * Name and shape of every tensor; `prefix` goes before each name (`language_model.` in a BLIP-2 checkpoint). `lm_head.weight` is
 * included only without tie_word_embeddings; the embeddings of encoder and decoder always are `shared.weight`.
 */
export function t5Weights(cfg: T5Config, prefix = ''): WeightTable {
  const { hidden_size: D, vocab_size: V } = cfg;
  const table: WeightTable = [
    ['shared.weight', [V, D]],
    ...stackWeights('encoder', cfg.num_hidden_layers, cfg, ['SelfAttention']),
    ...stackWeights('decoder', cfg.num_decoder_layers, cfg, ['SelfAttention', 'EncDecAttention']),
  ];
  if (!cfg.tie_word_embeddings) table.push(['lm_head.weight', [V, D]]);
  return table.map(([name, shape]) => [prefix + name, shape]);
}

function stackWeights(stack: string, depth: number, cfg: T5Config, attentions: string[]): WeightTable {
  const { hidden_size: D, d_ff: F, num_attention_heads: H } = cfg;
  const I = H * cfg.d_kv;
  const norm = (at: string): WeightTable[number] => [`${at}.layer_norm.weight`, [D]];
  const block = (i: number): WeightTable => [
    ...attentions.flatMap((name, n) => {
      const at = `${stack}.block.${i}.layer.${n}`;
      const bias: WeightTable =
        i === 0 && n === 0
          ? [[`${at}.${name}.relative_attention_bias.weight`, [cfg.relative_attention_num_buckets, H]]]
          : [];
      return [
        ...['q', 'k', 'v'].flatMap((part) => linearShapes(`${at}.${name}.${part}`, D, I, false)),
        ...linearShapes(`${at}.${name}.o`, I, D, false),
        ...bias,
        norm(at),
      ];
    }),
    ...feedForwardWeights(`${stack}.block.${i}.layer.${attentions.length}`, D, F, cfg.is_gated_act),
    norm(`${stack}.block.${i}.layer.${attentions.length}`),
  ];
  return [
    ...Array.from({ length: depth }, (_, i) => block(i)).flat(),
    [`${stack}.final_layer_norm.weight`, [D]],
  ];
}

function feedForwardWeights(at: string, D: number, F: number, gated: boolean): WeightTable {
  return [
    ...(gated ? ['wi_0', 'wi_1'] : ['wi']).flatMap((name) =>
      linearShapes(`${at}.DenseReluDense.${name}`, D, F, false),
    ),
    ...linearShapes(`${at}.DenseReluDense.wo`, F, D, false),
  ];
}
