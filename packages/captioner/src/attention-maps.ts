/**
 * Where in the picture the queries look that a token needed. The language model reads a picture as Q rows, one for each query of the
 * Q-Former. Attribution by leaving out: each row in turn is replaced by the mean of all, and a token's drop in log-probability is the
 * query's share in it. A query looks where its cross-attention is, over the mean of layers and heads. So a map shows which patches the
 * queries read that a token needed; it is no proof that the model "sees" a thing there.
 * Q queries, U tokens, N patches, V vocabulary.
 */
import { forward, imageFeatures } from '@blip2/blip2';
import type { Blip2, TokenBatch } from '@blip2/blip2';
import { add, dispose, logSoftmax, mean, scale, slice, tensor, tidy } from '@blip2/nn';
import type { Tensor3D, Tensor4D } from '@blip2/nn';
import { crossAttentions } from '@blip2/qformer';

/** Rows of a forward pass at a time: [rows, U, V] scores come to the host. */
const ROWS = 8;

/** Where each query looks: pixel_values [B, 3, S, S] → [B, Q, N], of which each row sums to at most 1; the rest is on the class token. */
export function queryAttention({ params, config }: Blip2, pixel_values: Tensor4D): Tensor3D {
  const { qformer, query_tokens } = params;
  if ('embeddings' in qformer)
    throw new Error('queryAttention: expected a Q-Former that reads no instructions');
  return tidy(() => {
    const features = imageFeatures({ params, config }, pixel_values);
    const layers = crossAttentions(qformer, query_tokens, features, config.qformer_config); // [B, H, Q, N + 1] each
    const heads = layers.map((layer) => mean<Tensor3D>(layer, 1)); // [B, Q, N + 1]
    const all = scale(
      heads.reduce((sum, one) => add(sum, one)),
      1 / heads.length,
    );
    return slice(all, [0, 0, 1], [all.shape[0], all.shape[1], all.shape[2] - 1]);
  });
}

/**
 * A map for each token of a text: [U][N], row by row. Other work can be done at each `yield`.
 * @param rows the picture's rows in the text model's input, [1, Q, D]. @param attention of its queries, [1, Q, N], from `queryAttention`
 * @param prompt one row. @param ids the text's tokens
 */
export async function* attentionMaps(
  model: Blip2,
  rows: Tensor3D,
  attention: Tensor3D,
  prompt: TokenBatch,
  ids: readonly number[],
): AsyncGenerator<void, number[][], void> {
  const [, Q, N] = attention.shape;
  const looking = (await attention.data()) as Float32Array;
  const shares = yield* sharesOf(model, rows, prompt, ids);
  return shares.map((own) =>
    Array.from({ length: N }, (_, n) => {
      let sum = 0;
      for (let q = 0; q < Q; q++) sum += own[q] * looking[q * N + n];
      return sum;
    }),
  );
}

/** [U][Q]: each token's shares of the queries, which sum to 1, or are all 0 where no query was needed. */
export async function* sharesOf(
  model: Blip2,
  rows: Tensor3D,
  prompt: TokenBatch,
  ids: readonly number[],
): AsyncGenerator<void, number[][], void> {
  const [, Q, D] = rows.shape;
  const values = (await rows.data()) as Float32Array;
  const average = Float32Array.from({ length: D }, (_, d) => {
    let sum = 0;
    for (let q = 0; q < Q; q++) sum += values[q * D + d];
    return sum / Q;
  });
  const without = (q: number) => {
    const changed = values.slice();
    if (q >= 0) changed.set(average, q * D);
    return changed;
  };
  const scores: Float32Array[] = [];
  for (let from = -1; from < Q; from += ROWS) {
    const some = Array.from({ length: Math.min(ROWS, Q - from) }, (_, i) => without(from + i));
    scores.push(...(await logProbabilities(model, some, [Q, D], prompt, ids)));
    yield;
  }
  const [whole, ...others] = scores;
  return ids.map((_, u) => {
    const drops = others.map((other) => Math.max(0, whole[u] - other[u]));
    const sum = drops.reduce((all, one) => all + one, 0);
    return drops.map((drop) => (sum > 0 ? drop / sum : 0));
  });
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
