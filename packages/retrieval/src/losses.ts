/**
 * The three losses of BLIP-2's first stage: contrastive, matching, and the text from the image. Reference: LAVIS,
 * models/blip2_models/blip2_qformer.py; where pairs of a batch belong together, its branch for fine-tuning on COCO, in which rows of one
 * picture have the same `image_id`. B images with one text each.
 */
import {
  activatedLinear,
  add,
  crossEntropy,
  div,
  fold,
  gatherRows,
  layerNorm,
  linear,
  linearCrossEntropy,
  max,
  reshape,
  scale,
  slice,
  tidy,
  uniform,
  zeros,
} from '@blip2/nn';
import type { Key, LayerNorm, Linear, Scalar, StageOptions, Tensor2D, Tensor3D } from '@blip2/nn';
import { ModelError } from '@blip2/blip2';
import { queryImages } from '@blip2/qformer';
import { embeddedTexts, matchScores } from './model';
import type { RetrievalModel, TextRows } from './model';

/** LAVIS's, in all its losses but matching. */
const LABEL_SMOOTHING = 0.1;

/**
 * Mean cross-entropy of finding the text of each image and the image of each text among those of the batch (InfoNCE).
 * images [B, Q, P] and texts [B, P] are unit vectors; `temperature` is a number that LAVIS also trains, from 0.07.
 * Rows of one image have equal scores, so targets that they share (LAVIS, with `image_id`) give the same loss.
 */
export function contrastiveLoss(images: Tensor3D, texts: Tensor2D, temperature: Scalar): Scalar {
  const [B, Q, P] = images.shape;
  if (texts.shape[0] !== B)
    throw new ModelError(`contrastiveLoss: expected ${B} texts, found ${texts.shape[0]}`);
  if (B === 1) return zeros([]); // there is nothing to find
  return tidy(() => {
    const own = Int32Array.from({ length: B }, (_, b) => b);
    const loss = (scores: Tensor2D) => crossEntropy(div(scores, temperature), own, LABEL_SMOOTHING);
    const ofImages = max<Tensor2D>(linear({ weight: texts }, images), 1); // [B, B]: image, text
    const queries = reshape<Tensor2D>(images, [B * Q, P]);
    const products = reshape<Tensor3D>(linear({ weight: queries }, texts), [B, B, Q]); // text, image, query
    return scale(add(loss(ofImages), loss(max<Tensor2D>(products, 2))), 0.5);
  });
}

/** Which image and text of a batch of pairs belong together: row-major [B, B], 1 where they do, such as for each pair's own. */
export type Together = Uint8Array;

/** A wrong image for each text and a wrong text for each image; −1 where all of the batch belong to it. */
export interface Negatives {
  imageOfText: Int32Array; // [B]
  textOfImage: Int32Array; // [B]
}

/**
 * Draws wrong partners, near ones more often: with the softmax of the similarities, and 1e-4 for each.
 * @param similarities of each image with each text, row-major [B, B]
 * @param together pairs that are never drawn. Default: each pair's own
 * @throws ModelError for a number of similarities that is no square, or ones that are not finite
 */
export function hardNegatives(
  similarities: Float32Array,
  temperature: number,
  key: Key,
  together?: Together,
): Negatives {
  const B = Math.round(Math.sqrt(similarities.length));
  if (B < 1 || B * B !== similarities.length || !similarities.every(Number.isFinite))
    throw new ModelError(
      `hardNegatives: expected finite similarities of all pairs of a batch, found ${similarities.length}`,
    );
  const isRight = (b: number, other: number) => (together ? together[b * B + other] === 1 : other === b);
  const draws = uniform(fold(key, 'negatives'), 2 * B);
  const partner = (b: number, score: (other: number) => number, draw: number) => {
    const scores = Array.from({ length: B }, (_, other) => score(other) / temperature);
    const highest = Math.max(...scores);
    const norm = scores.reduce((total, x) => total + Math.exp(x - highest), 0);
    const weights = scores.map((x, other) => (isRight(b, other) ? 0 : Math.exp(x - highest) / norm + 1e-4));
    let left = draw * weights.reduce((total, w) => total + w, 0);
    const found = weights.findIndex((w) => (left -= w) < 0 && w > 0);
    return found >= 0 ? found : weights.findIndex((w) => w > 0); // rounding at the end of the range, or there is none
  };
  const all = Array.from({ length: B }, (_, b) => b);
  return {
    imageOfText: Int32Array.from(all, (b) => partner(b, (i) => similarities[i * B + b], draws[b])),
    textOfImage: Int32Array.from(all, (b) => partner(b, (t) => similarities[b * B + t], draws[B + b])),
  };
}

/**
 * Mean cross-entropy of telling the right pairs from the wrong ones: each pair, each text with a wrong image, and each image with a wrong
 * text, where there is one. Image tokens [B, N, E].
 */
export function matchingLoss(
  model: RetrievalModel,
  tokens: Tensor3D,
  rows: TextRows,
  { imageOfText, textOfImage }: Negatives,
  o: StageOptions = {},
): Scalar {
  const own = Array.from({ length: tokens.shape[0] }, (_, b) => b);
  const wrong = [...own.map((b) => [imageOfText[b], b]), ...own.map((b) => [b, textOfImage[b]])].filter(
    ([image, text]) => image >= 0 && text >= 0,
  );
  const pairs = [...own.map((b) => [b, b]), ...wrong];
  return tidy(() => {
    const images = gatherRows(
      tokens,
      Int32Array.from(pairs, ([image]) => image),
    );
    const texts = textsAt(
      rows,
      pairs.map(([, text]) => text),
    );
    const labels = Int32Array.from(pairs, (_, i) => (i < own.length ? 1 : 0));
    return crossEntropy(matchScores(model, images, texts, o), labels);
  });
}

/** The head of BERT that predicts words. Checkpoints of transformers do not have it; LAVIS's of the first stage do. */
export interface WordHead {
  transform: { dense: Linear; LayerNorm: LayerNorm }; // [D, D], [D]
  decoder: Linear; // [V, D], the words' table, with a bias
}

/**
 * Mean cross-entropy of the next word of each text, read from the queries of its image and the words before it. `start`: the id that
 * stands in the place of [CLS], LAVIS's [DEC].
 */
export function generationLoss(
  model: RetrievalModel,
  head: WordHead,
  { tokens, rows, start }: { tokens: Tensor3D; rows: TextRows; start: number },
  o: StageOptions = {},
): Scalar {
  const { config, params } = model;
  const [B, T] = rows.shape;
  const input_ids = rows.input_ids.map((id, i) => (i % T === 0 ? start : id));
  return tidy(() => {
    const texts = { ...embeddedTexts(model, { ...rows, input_ids }), causal: true };
    const states = queryImages(params.qformer, params.query_tokens, tokens, config.qformer_config, {
      ...o,
      texts,
    });
    const [, all, D] = states.shape;
    const words = slice(states, [0, all - T, 0], [B, T - 1, D]); // the last one predicts nothing
    const h = activatedLinear('gelu', head.transform.dense, reshape<Tensor2D>(words, [B * (T - 1), D]));
    const ready = layerNorm(head.transform.LayerNorm, h, config.qformer_config.layer_norm_eps);
    const labels = Int32Array.from({ length: B * (T - 1) }, (_, i) => {
      const at = Math.floor(i / (T - 1)) * T + (i % (T - 1)) + 1;
      return rows.attention_mask[at] === 1 ? input_ids[at] : -100;
    });
    return linearCrossEntropy(head.decoder, ready, labels, LABEL_SMOOTHING);
  });
}

function textsAt({ input_ids, attention_mask, shape: [, T] }: TextRows, at: readonly number[]): TextRows {
  const pick = (values: Int32Array) =>
    Int32Array.from({ length: at.length * T }, (_, i) => values[at[Math.floor(i / T)] * T + (i % T)]);
  return { input_ids: pick(input_ids), attention_mask: pick(attention_mask), shape: [at.length, T] };
}
