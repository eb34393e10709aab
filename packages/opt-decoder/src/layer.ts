// One layer of OPT. Reference: `OPTDecoderLayer` (transformers, models/opt/modeling_opt.py). D hidden size, F ffn.
import {
  activatedLinear,
  decoderLayers,
  gatherRows,
  layerNorm,
  linear,
  plainLayers,
  reshape,
  residualLinear,
  site,
} from '@blip2/nn';
import type { CachePage, DecoderLayer, Key, LayerNorm, Linear, Tensor, Tensor2D, Tensor3D } from '@blip2/nn';
import type { OptConfig } from './config';

/** PyTorch's default; OPT's config has no field for it. */
const LAYER_NORM_EPS = 1e-5;

/** Field names are those of the checkpoint. Without enable_bias there are no biases. */
export interface OptLayer {
  self_attn: { q_proj: Linear; k_proj: Linear; v_proj: Linear; out_proj: Linear }; // each [D, D]
  self_attn_layer_norm: LayerNorm; // [D]
  fc1: Linear; // [F, D]
  fc2: Linear; // [D, F]
  final_layer_norm: LayerNorm; // [D]
}

/** The inputs of a layer besides the hidden states. */
export interface LayerContext<X extends Tensor> {
  /** Attention of the new positions to those that they may see; the result has the shape of q. */
  attend(q: X, k: X, v: X, dropout: { rate: number; key: Key | undefined }): X;
  key?: Key;
  /** The flattened positions to return; the others are computed only up to attention. */
  rows?: Int32Array;
}

/** LayerNorm of OPT. */
export function norm<X extends Tensor>(n: LayerNorm, x: X): X {
  return layerNorm(n, x, LAYER_NORM_EPS);
}

/** One layer: x [..., D] → x [..., D] (with M `rows`: [M, D], with leading ones) and its keys and values [..., D]. */
export function block<X extends Tensor>(
  p: OptLayer,
  x: X,
  cfg: OptConfig,
  { attend, key, rows }: LayerContext<X>,
): { x: X; k: X; v: X } {
  const { do_layer_norm_before: pre } = cfg;
  const { q_proj, k_proj, v_proj, out_proj } = p.self_attn;
  // Adds a projection of y to the residual stream.
  const join = (x: X, linear: Linear, y: X, name: string) =>
    residualLinear(linear, y, x, {
      key: site(key, name),
      dropout: { rate: cfg.dropout, key: site(key, `${name}.dropout`) },
    });

  const h = pre ? norm(p.self_attn_layer_norm, x) : x;
  const q = linear(q_proj, h, site(key, 'q_proj')); // [..., D]
  const k = linear(k_proj, h, site(key, 'k_proj'));
  const v = linear(v_proj, h, site(key, 'v_proj'));
  const attended = attend(q, k, v, { rate: cfg.attention_dropout, key: site(key, 'attention') });
  const selected = (y: X) => (rows ? pick(y, rows) : y);
  x = join(selected(x), out_proj, selected(attended), 'out_proj');
  if (!pre) x = norm(p.self_attn_layer_norm, x);

  const g = pre ? norm(p.final_layer_norm, x) : x;
  const f = activatedLinear(cfg.activation_function, p.fc1, g, site(key, 'fc1')); // [..., F]
  x = join(x, p.fc2, f, 'fc2');
  if (!pre) x = norm(p.final_layer_norm, x);
  return { x, k, v };
}

/**
 * The first `count` layers in one kernel, at new positions after those of `pages`; undefined if a layer of the model has an adapter that
 * the kernel does not know.
 */
export function fusedLayers(
  layers: readonly OptLayer[],
  count: number,
  x: Tensor3D,
  cfg: OptConfig,
  { pages, keyMask }: { pages: readonly CachePage[]; keyMask?: Tensor2D },
): ReturnType<typeof decoderLayers> | undefined {
  const plain = plainLayers(layers, decoderLayerOf);
  if (!plain) return undefined;
  return decoderLayers(count < plain.length ? plain.slice(0, count) : plain, x, pages, {
    numHeads: cfg.num_attention_heads,
    eps: LAYER_NORM_EPS,
    normFirst: cfg.do_layer_norm_before,
    activation: cfg.activation_function,
    keyMask,
  });
}

function decoderLayerOf(p: OptLayer): DecoderLayer {
  const { q_proj, k_proj, v_proj, out_proj } = p.self_attn;
  return {
    norms: [p.self_attn_layer_norm, p.final_layer_norm],
    linears: [q_proj, k_proj, v_proj, out_proj, p.fc1, p.fc2],
  };
}

/** Rows of the flattened positions of x [..., D]: [M, D], or [1, M, D] of three dimensions. */
function pick<X extends Tensor>(x: X, rows: Int32Array): X {
  const D = x.shape[x.rank - 1];
  const flat = x.rank === 2 ? x : reshape<Tensor2D>(x, [x.size / D, D]);
  const picked = gatherRows<Tensor>(flat, rows);
  return (x.rank === 2 ? picked : reshape(picked, [1, rows.length, D])) as X;
}
