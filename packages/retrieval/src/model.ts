/** The parameters, and embeddings and scores from them. Reference: `Blip2ForImageTextRetrieval` of transformers 5. */
// B images, Q queries, N image tokens, E their width, R texts of T tokens, D the Q-Former's width, P image_text_hidden_size.
import {
  add,
  div,
  linear,
  linearShapes,
  max,
  mean,
  mul,
  reshape,
  slice,
  sqrt,
  sum,
  tensor,
  tidy,
} from '@blip2/nn';
import type { Linear, StageOptions, Tensor, Tensor2D, Tensor3D, Tensor4D, WeightTable } from '@blip2/nn';
import { ModelError } from '@blip2/blip2';
import { embedWords, qformerWeights, queryImages, readTexts } from '@blip2/qformer';
import type { QFormerModel, QFormerTexts, TextRows, WordTables } from '@blip2/qformer';
import { encodeImages, visionWeights } from '@blip2/vision-encoder';
import type { VisionModel } from '@blip2/vision-encoder';
import type { RetrievalConfig } from './config';

export type { TextRows };

/** Field names are the checkpoint's. What a checkpoint does not have is absent: see `parts` of the config. */
export interface RetrievalParams {
  query_tokens: Tensor3D; // [1, Q, D]
  qformer: QFormerModel;
  vision_model?: VisionModel;
  embeddings?: WordTables;
  vision_projection?: Linear; // D → P
  text_projection?: Linear; // D → P
  itm_head?: Linear; // D → 2
}

export interface RetrievalModel {
  config: RetrievalConfig;
  params: RetrievalParams;
}

/** Name and shape of every tensor of the checkpoint. */
export function retrievalWeights(cfg: RetrievalConfig): WeightTable {
  const { parts, qformer_config, image_text_hidden_size: P } = cfg;
  const { hidden_size: D } = qformer_config;
  return [
    ['query_tokens', [1, cfg.num_query_tokens, D]],
    ...(parts.images ? visionWeights(cfg.vision_config, 'vision_model.') : []),
    ...(parts.texts
      ? ([
          ['embeddings.word_embeddings.weight', [cfg.vocab_size, D]],
          ['embeddings.position_embeddings.weight', [cfg.max_position_embeddings, D]],
        ] satisfies WeightTable)
      : []),
    ...qformerWeights(qformer_config, 'qformer.'),
    ...(parts.images ? linearShapes('vision_projection', D, P) : []),
    ...(parts.texts ? linearShapes('text_projection', D, P) : []),
    ...(parts.matching ? linearShapes('itm_head', D, 2) : []),
  ];
}

/** The vision tower: pixel_values [B, 3, S, S] → [B, N, E]. @throws ModelError if the checkpoint reads no images */
export function imageTokens({ config, params }: RetrievalModel, pixel_values: Tensor4D): Tensor3D {
  const tower = needed(params.vision_model, config, 'read images');
  return tidy(() => encodeImages(tower, pixel_values, config.vision_config));
}

/** One unit vector for each query of each image: image tokens [B, N, E] → [B, Q, P]. @throws ModelError */
export function embedImages(
  { config, params }: RetrievalModel,
  tokens: Tensor3D,
  o: StageOptions = {},
): Tensor3D {
  const projection = needed(params.vision_projection, config, 'embed images');
  return tidy(() =>
    unit(
      linear(projection, queryImages(params.qformer, params.query_tokens, tokens, config.qformer_config, o)),
    ),
  );
}

/** A unit vector for each text → [R, P]. @throws ModelError if the checkpoint or a text does not fit */
export function embedTexts(
  { config, params }: RetrievalModel,
  rows: TextRows,
  o: StageOptions = {},
): Tensor2D {
  const projection = needed(params.text_projection, config, 'embed texts');
  return tidy(() => {
    const states = readTexts(
      params.qformer,
      embeddedTexts({ config, params }, rows),
      config.qformer_config,
      o,
    ); // [R, T, D]
    const [R, , D] = states.shape;
    const first = reshape<Tensor2D>(slice(states, [0, 0, 0], [R, 1, D]), [R, D]); // of [CLS]
    return unit(linear(projection, first));
  });
}

/** Cosine similarity of each image with each text, of the query that is nearest: [B, Q, P], [R, P] → [B, R]. */
export function similarity(images: Tensor3D, texts: Tensor2D): Tensor2D {
  return tidy(() => max<Tensor2D>(linear({ weight: texts }, images), 1));
}

/**
 * Scores that an image and a text do not match, and that they do, before softmax: image tokens [B, N, E] and as many texts → [B, 2].
 * @throws ModelError if the checkpoint has no head for it, or the numbers differ
 */
export function matchScores(
  { config, params }: RetrievalModel,
  tokens: Tensor3D,
  rows: TextRows,
  o: StageOptions = {},
): Tensor2D {
  const head = needed(params.itm_head, config, 'match images and texts');
  const [B, R] = [tokens.shape[0], rows.shape[0]];
  if (B !== R) throw new ModelError(`matchScores: expected as many texts as images (${B}), found ${R}`);
  return tidy(() => {
    const texts = embeddedTexts({ config, params }, rows);
    const states = queryImages(params.qformer, params.query_tokens, tokens, config.qformer_config, {
      ...o,
      texts,
    });
    const queries = slice(states, [0, 0, 0], [B, config.num_query_tokens, states.shape[2]]);
    return mean<Tensor2D>(linear(head, queries), 1);
  });
}

/** Words and their positions, as the Q-Former reads them: [R, T, D]. @throws ModelError */
export function embeddedTexts({ config, params }: RetrievalModel, rows: TextRows): QFormerTexts {
  return embedWords(needed(params.embeddings, config, 'read texts'), rows);
}

/** Rows divided by their lengths; a row of zeros stays one. */
function unit<X extends Tensor>(x: X): X {
  return div(x, sqrt(add(sum(mul(x, x), x.rank - 1, true), tensor([1e-24], []))));
}

function needed<X>(part: X | undefined, { architecture }: RetrievalConfig, what: string): X {
  if (part !== undefined) return part;
  throw new ModelError(`${architecture} cannot ${what}; use a Blip2ForImageTextRetrieval checkpoint`);
}
