/**
 * Which queries a text came from, and where these looked. The language model reads a picture as Q rows, one for each query of the
 * Q-Former. Attribution by leaving out: each row in turn is replaced by the mean of all, and a token's drop in log-probability is the
 * query's share in it. A query looks where its cross-attention is, over the mean of layers and heads. So a map tells which patches the
 * queries read that a word needed; it is no proof that the model "sees" a thing there.
 * Q queries, U tokens, N patches, V vocabulary.
 */
import { forward, qformerFeatures } from '@blip2/blip2';
import type { Blip2, TokenBatch } from '@blip2/blip2';
import { dispose, linear, logSoftmax, slice, tensor, tidy } from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import { crossAttentions } from '@blip2/qformer';

/** Rows of a forward pass at a time: [rows, U, V] scores come to the host. */
const ROWS = 8;

/** The rows that the queries of one picture become: image_features [1, N + 1, Dv] → [1, Q, D]. */
export const queryRows = (model: Blip2, image_features: Tensor3D): Tensor3D =>
  tidy(() => linear(model.params.language_projection, qformerFeatures(model, image_features)));

export interface Shares {
  /** of each token, given the prompt and those before it */
  probabilities: number[];
  /** [U][Q]: each token's shares of the queries, which sum to 1, or are all 0 where no query was needed */
  shares: number[][];
}

/** @param rows from `queryRows`. @param prompt one row. @param ids the text's tokens */
export async function sharesOf(
  model: Blip2,
  rows: Tensor3D,
  prompt: TokenBatch,
  ids: readonly number[],
): Promise<Shares> {
  const [, Q, D] = rows.shape;
  const values = (await rows.data()) as Float32Array;
  const mean = Float32Array.from({ length: D }, (_, d) => {
    let sum = 0;
    for (let q = 0; q < Q; q++) sum += values[q * D + d];
    return sum / Q;
  });
  const without = (q: number) => {
    const changed = values.slice();
    if (q >= 0) changed.set(mean, q * D);
    return changed;
  };
  const scores: Float32Array[] = [];
  for (let from = -1; from < Q; from += ROWS) {
    const some = Array.from({ length: Math.min(ROWS, Q - from) }, (_, i) => without(from + i));
    scores.push(...(await logProbabilities(model, some, [Q, D], prompt, ids)));
  }
  const [whole, ...others] = scores;
  return {
    probabilities: [...whole].map(Math.exp),
    shares: ids.map((_, u) => {
      const drops = others.map((other) => Math.max(0, whole[u] - other[u]));
      const sum = drops.reduce((all, one) => all + one, 0);
      return drops.map((drop) => (sum > 0 ? drop / sum : 0));
    }),
  };
}

/** Log-probability of each token after the prompt, for several versions of a picture's rows: [rows][U]. */
async function logProbabilities(
  model: Blip2,
  versions: readonly Float32Array[],
  [Q, D]: [number, number],
  prompt: TokenBatch,
  ids: readonly number[],
): Promise<Float32Array[]> {
  const B = versions.length;
  const [U, P] = [ids.length, prompt.shape[1]];
  const isCausal = model.config.text_config.decoder_start_token_id === undefined;
  const repeat = (row: readonly number[]) =>
    Int32Array.from({ length: B * row.length }, (_, i) => row[i % row.length]);
  const text = [...prompt.input_ids, ...(isCausal ? ids : [])];
  const mask = [...prompt.attention_mask, ...(isCausal ? ids.map(() => 1) : [])];
  const tokens: TokenBatch = {
    input_ids: repeat(text),
    attention_mask: repeat(mask),
    shape: [B, text.length],
    ...(!isCausal && { labels: repeat(ids) }),
  };
  const rows = new Float32Array(B * Q * D);
  versions.forEach((version, b) => rows.set(version, b * Q * D));
  const scores = tidy(() => {
    const query_embeds = tensor<Tensor3D>(rows, [B, Q, D]);
    const { logits } = forward(model, { query_embeds }, tokens);
    const predicting = isCausal ? slice(logits, [0, P - 1, 0], [B, U, logits.shape[2]]) : logits;
    return logSoftmax(predicting); // [B, U, V]
  });
  const V = scores.shape[2];
  const all = (await scores.data()) as Float32Array;
  dispose(scores);
  return versions.map((_, b) => Float32Array.from(ids, (id, u) => all[(b * U + u) * V + id]));
}

/** Where each query looks: [Q][N], which sum to at most 1; the rest is on the class token. */
export async function looks(model: Blip2, image_features: Tensor3D): Promise<number[][]> {
  const { qformer, query_tokens } = model.params;
  if ('embeddings' in qformer) throw new Error('looks: expected a Q-Former that reads no instructions');
  const layers = crossAttentions(qformer, query_tokens, image_features, model.config.qformer_config);
  const [, H, Q, positions] = layers[0].shape;
  const sums = Array.from({ length: Q }, () => new Array<number>(positions - 1).fill(0));
  for (const layer of layers) {
    const values = (await layer.data()) as Float32Array;
    for (let h = 0; h < H; h++)
      for (let q = 0; q < Q; q++)
        for (let n = 1; n < positions; n++)
          sums[q][n - 1] += values[(h * Q + q) * positions + n] / (H * layers.length);
  }
  dispose(layers);
  return sums;
}

/** The map of some shares of queries: [N], relative to its largest value. */
export function mapOf(shares: readonly number[], looking: readonly (readonly number[])[]): number[] {
  const map = looking[0].map((_, n) => shares.reduce((sum, share, q) => sum + share * looking[q][n], 0));
  const most = Math.max(...map);
  return map.map((value) => (most > 0 ? Number((value / most).toFixed(3)) : 0));
}
