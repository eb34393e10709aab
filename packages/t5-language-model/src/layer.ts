// The blocks of T5. Reference: `T5Block` (transformers, models/t5/modeling_t5.py).
// D hidden size, I = heads · d_kv, F ffn.
import { activatedLinear, dropout, gatedGelu, linear, mul, residualLinear, rmsNorm, site } from '@blip2/nn';
import type { Embedding, Key, Linear, RmsNorm, Tensor3D } from '@blip2/nn';
import type { T5Config } from './config';

export interface T5Attention {
  q: Linear; // [I, D]
  k: Linear; // [I, D]
  v: Linear; // [I, D]
  o: Linear; // [D, I]
  /** Self-attention of block 0 only; the other blocks use its bias. */
  relative_attention_bias?: Embedding; // [buckets, heads]
}
export interface SelfAttentionLayer {
  SelfAttention: T5Attention;
  layer_norm: RmsNorm; // [D]
}
export interface CrossAttentionLayer {
  EncDecAttention: T5Attention;
  layer_norm: RmsNorm; // [D]
}
export interface FeedForwardLayer {
  /** `wi` without a gate, else `wi_0` (activated) and `wi_1`. */
  DenseReluDense: { wi?: Linear; wi_0?: Linear; wi_1?: Linear /* [F, D] */; wo: Linear /* [D, F] */ };
  layer_norm: RmsNorm; // [D]
}
export interface EncoderBlock {
  layer: [SelfAttentionLayer, FeedForwardLayer];
}
export interface DecoderBlock {
  layer: [SelfAttentionLayer, CrossAttentionLayer, FeedForwardLayer];
}

export type DropoutOptions = { rate: number; key: Key | undefined };
/** Attention with queries, keys and values of width I; the result has the shape of q. */
export type Attend = (q: Tensor3D, k: Tensor3D, v: Tensor3D, dropout: DropoutOptions) => Tensor3D;
/** Attention to the image and the prompt. */
export type AttendTo = (q: Tensor3D, dropout: DropoutOptions) => Tensor3D;

/** Keys and values [.., I] of x [.., D]. */
export function keysAndValues(p: T5Attention, x: Tensor3D, key: Key | undefined) {
  return { k: linear(p.k, x, site(key, 'k')), v: linear(p.v, x, site(key, 'v')) };
}

/** x + o(attended), with the dropout of the branch. */
function joined({ o }: T5Attention, x: Tensor3D, attended: Tensor3D, cfg: T5Config, key: Key | undefined) {
  return residualLinear(o, attended, x, {
    key: site(key, 'o'),
    dropout: { rate: cfg.dropout_rate, key: site(key, 'o.dropout') },
  });
}

/** Self-attention of x [.., D] → x [.., D] and its keys and values [.., I]. */
export function selfAttention(
  { SelfAttention: p, layer_norm }: SelfAttentionLayer,
  x: Tensor3D,
  cfg: T5Config,
  attend: Attend,
  key: Key | undefined,
): { x: Tensor3D; k: Tensor3D; v: Tensor3D } {
  const h = rmsNorm(layer_norm, x, cfg.layer_norm_epsilon);
  const q = linear(p.q, h, site(key, 'q'));
  const { k, v } = keysAndValues(p, h, key);
  const attended = attend(q, k, v, { rate: cfg.dropout_rate, key: site(key, 'attention') });
  return { x: joined(p, x, attended, cfg, key), k, v };
}

/** Cross-attention of x [.., D] → [.., D]. */
export function crossAttention(
  { EncDecAttention: p, layer_norm }: CrossAttentionLayer,
  x: Tensor3D,
  cfg: T5Config,
  attend: AttendTo,
  key: Key | undefined,
): Tensor3D {
  const h = rmsNorm(layer_norm, x, cfg.layer_norm_epsilon);
  const q = linear(p.q, h, site(key, 'q'));
  const attended = attend(q, { rate: cfg.dropout_rate, key: site(key, 'attention') });
  return joined(p, x, attended, cfg, key);
}

/** The feed-forward layer: x [.., D] → [.., D]. */
export function feedForward(
  { DenseReluDense: p, layer_norm }: FeedForwardLayer,
  x: Tensor3D,
  cfg: T5Config,
  key: Key | undefined,
): Tensor3D {
  const h = rmsNorm(layer_norm, x, cfg.layer_norm_epsilon);
  const f = dropout(inner(p, h, cfg, key), cfg.dropout_rate, site(key, 'wi.dropout')); // [.., F]
  return residualLinear(p.wo, f, x, {
    key: site(key, 'wo'),
    dropout: { rate: cfg.dropout_rate, key: site(key, 'wo.dropout') },
  });
}

function inner(
  { wi, wi_0, wi_1 }: FeedForwardLayer['DenseReluDense'],
  h: Tensor3D,
  { dense_act_fn }: T5Config,
  key: Key | undefined,
): Tensor3D {
  const act = (p: Linear, name: string) =>
    activatedLinear(dense_act_fn as 'relu' | 'gelu', p, h, site(key, name));
  if (wi) return act(wi, 'wi');
  const x = linear(wi_1!, h, site(key, 'wi_1'));
  if (dense_act_fn === 'gelu_new') return gatedGelu(linear(wi_0!, h, site(key, 'wi_0')), x);
  return mul(act(wi_0!, 'wi_0'), x);
}
