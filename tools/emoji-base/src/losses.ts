// The losses of the base: captions, and three auxiliary losses that speed up vision training. Their heads are not
// saved. B images, Q queries, D width, V vocabulary, C candidate words, U concepts, L English lines of T tokens.
import { imageFeatures, loss, queryEmbeds } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import {
  add,
  crossEntropy,
  embedding,
  gatherRows,
  layerNorm,
  linear,
  max,
  mul,
  normal,
  reshape,
  scale,
  sub,
  sum,
  tensor,
  transpose,
} from '@blip2/nn';
import type { Embedding, Key, LayerNorm, Scalar, Tensor, Tensor2D, Tensor3D, Tensor4D } from '@blip2/nn';
import { decode, embedTokens, lmLogits } from '@blip2/opt-decoder';
import type { OptConfig, OptModel } from '@blip2/opt-decoder';
import type { BaseBatch, ConceptTargets, LineBatch, WordTargets } from './batches';
import { IMAGE_SIZE } from './model-files';

/** Parameters that only the losses use. */
export interface Heads {
  word: LayerNorm;
  image: LayerNorm;
  text: LayerNorm;
  /** Words of labels and tags for the contrastive loss [V, D]. */
  bag: Embedding;
}

export const LOSS_WEIGHTS = { caption: 1, word: 0.5, contrast: 0.3, line: 0.2 } as const;
export type LossName = keyof typeof LOSS_WEIGHTS;

const EPS = 1e-5;
const TEMPERATURE = 0.07;
const POSITION_OFFSET = 2; // rows 0 and 1 of OPT's position table precede position 0

export function initHeads(vocab: number, width: number, key: Key): Heads {
  const norm = (): LayerNorm => ({
    weight: tensor(new Float32Array(width).fill(1), [width]),
    bias: tensor(new Float32Array(width), [width]),
  });
  const weight = normal(key, vocab * width).map((x) => 0.02 * x);
  return { word: norm(), image: norm(), text: norm(), bag: { weight: tensor(weight, [vocab, width]) } };
}

/** All losses of one batch; the images pass through vision tower and Q-Former once. */
export function lossParts(model: Blip2, heads: Heads, batch: BaseBatch): Record<LossName, Scalar> {
  const pixel_values = tensor<Tensor4D>(batch.pixels, [batch.tokens.shape[0], 3, IMAGE_SIZE, IMAGE_SIZE]);
  const query_embeds = queryEmbeds(model, imageFeatures(model, pixel_values)); // [B, Q, D]
  return {
    caption: loss(model, { query_embeds }, batch.tokens),
    word: wordLoss(heads, query_embeds, textModel(model).model.decoder.embed_tokens, batch.words),
    contrast: contrastLoss(heads, query_embeds, batch.concepts),
    line: lineLoss(model, batch.lines),
  };
}

/** Σ weight · loss. */
export function totalLoss(parts: Record<LossName, Scalar>): Scalar {
  const names = Object.keys(LOSS_WEIGHTS) as LossName[];
  return names.map((name) => scale(parts[name], LOSS_WEIGHTS[name])).reduce((a, b) => add(a, b));
}

/**
 * Word loss: which words describe the image. −mean log softmax over the C candidates of s(w) at each word w of the
 * caption, where s(w) = max over queries q of ⟨LN(x_q), e_w⟩ and e_w is the language model's embedding. Word order has
 * no effect.
 */
export function wordLoss(heads: Heads, queries: Tensor3D, embed: Embedding, words: WordTargets): Scalar {
  const [B, Q, D] = queries.shape;
  const C = words.candidates.length;
  const x = reshape<Tensor2D>(layerNorm(heads.word, queries, EPS), [B * Q, D]);
  const table = gatherRows(embed.weight, words.candidates); // [C, D]
  const best = bestQuery(linear({ weight: x }, table), C, B, Q); // [C, B]
  const logits = transpose(best, [1, 0]); // [B, C]
  return crossEntropy(gatherRows(logits, words.rows), words.labels);
}

/**
 * Image–text contrast with the best query, as in BLIP-2's first stage: s(u, b) = max over q of cos(image b query q,
 * text u) / 0.07; cross-entropy from images to concepts and back, averaged. A text is the mean embedding of the words
 * of label and tags. LayerNorm replaces normalisation to unit length, so that its gain can scale the scores.
 */
export function contrastLoss(heads: Heads, queries: Tensor3D, concepts: ConceptTargets): Scalar {
  const [B, Q, D] = queries.shape;
  const [U, T] = concepts.shape;
  const x = reshape<Tensor2D>(layerNorm(heads.image, queries, EPS), [B * Q, D]);
  const words = embedding(heads.bag, concepts.bags, [U, T]); // [U, T, D]
  const bags = sum(mul(words, tensor(concepts.weights, [U, T, 1])), 1); // [U, D]
  const text = scale(layerNorm(heads.text, bags, EPS), 1 / (D * TEMPERATURE)); // [U, D]
  const scores = bestQuery(linear({ weight: x }, text), U, B, Q); // [U, B]
  const toText = crossEntropy(transpose(scores, [1, 0]) as Tensor2D, concepts.ofImage);
  const toImage = crossEntropy(add(scores, tensor(concepts.others, [U, B])), concepts.firstImage);
  return scale(add(toText, toImage), 0.5);
}

/** scores [R, B·Q] → maximum over the queries of each image [R, B]. */
function bestQuery(scores: Tensor, R: number, B: number, Q: number): Tensor2D {
  return reshape<Tensor2D>(max(reshape(scores, [R * B, Q]), 1), [R, B]);
}

/** The base's text model is an OPT. */
const textModel = ({ params }: Blip2) => params.language_model as OptModel;

/**
 * Plain language modelling of English lines, −mean log p(next token), so that every piece of the vocabulary has a
 * trained embedding. Line l has the positions offset_l, offset_l + 1, … (after the positions of an image): `decode`
 * adds the vectors P of positions 0, 1, …, so the difference P[offset + t] − P[t] is added to its input. Positions
 * before the line need not be computed.
 */
export function lineLoss(model: Blip2, lines: LineBatch): Scalar {
  const language_model = textModel(model);
  const { embed_positions } = language_model.model.decoder;
  const [L, T] = lines.shape;
  const at = (shift: (l: number) => number) =>
    Int32Array.from({ length: L * T }, (_, i) => POSITION_OFFSET + shift(Math.floor(i / T)) + (i % T));
  const moved = sub(
    embedding(
      embed_positions,
      at((l) => lines.offsets[l]),
      [L, T],
    ),
    embedding(
      embed_positions,
      at(() => 0),
      [L, T],
    ),
  );
  const inputs = add(embedTokens(language_model, lines.input_ids, [L, T]), moved); // [L, T, D]
  const { attention_mask } = lines;
  const { hidden } = decode(language_model, inputs, model.config.text_config as OptConfig, {
    attention_mask,
  });
  const { rows, labels } = nextTokens(lines);
  const states = gatherRows(reshape<Tensor2D>(hidden, [L * T, hidden.shape[2]]), rows); // [M, D]
  return crossEntropy(lmLogits(language_model, states), labels);
}

/** Positions whose next token has a label, and these labels. */
function nextTokens({ labels, shape: [L, T] }: LineBatch): { rows: Int32Array; labels: Int32Array } {
  const rows: number[] = [];
  for (let i = 0; i < L * T; i++) if (i % T < T - 1 && labels![i + 1] >= 0) rows.push(i);
  return { rows: Int32Array.from(rows), labels: Int32Array.from(rows, (row) => labels![row + 1]) };
}
