/**
 * BLIP-2's forward pass and loss. Reference: `Blip2ForConditionalGeneration.forward` (transformers, modeling_blip_2.py), and
 * `InstructBlipForConditionalGeneration.forward` (modeling_instructblip.py).
 * B rows, T tokens of a row, P pictures (B, unless rows share them), R readings of them, Q queries, N image tokens of the vision tower, Dv / Dq / Dt
 * hidden sizes of vision tower, Q-Former and text model, V vocabulary.
 */
import { concat, gatherRows, linear, part, reshape, slice } from '@blip2/nn';
import type { Key, Scalar, StageOptions, Tensor, Tensor2D, Tensor3D, Tensor4D, TextConfig } from '@blip2/nn';
import { embedWords, queryImages, withoutWords } from '@blip2/qformer';
import type { TextRows } from '@blip2/qformer';
import { encodeImages, poolImages } from '@blip2/vision-encoder';
import { ModelError } from './config';
import { belowDepth } from './frozen';
import { languageModel } from './language-model';
import type { Blip2 } from './model';
import { pack, picturesOf } from './packing';
import type { PackedLayout } from './packing';
import { imagesRead, readingsOf } from './readings';
import type { Readings } from './readings';
import { layout } from './tokens';
import type { Layout, TokenBatch } from './tokens';

/** The pictures of a batch at one of three stages, so that a stage can be computed once and cached. */
export type ImageInput =
  | { pixel_values: Tensor4D } // [P, 3, S, S]
  | { image_features: Tensor3D } // [P, N, Dv], from `imageFeatures`
  | { query_embeds: Tensor3D }; // [P, Q, Dt], from `queryEmbeds`; not for a Q-Former that reads instructions

/** In place of the pictures of a batch, `hiddenBelow` of it: [N, Dt]. */
export type LossInput = ImageInput | { hidden: Tensor2D };

export interface LossOptions extends Blip2Options {
  label_smoothing?: number;
  /**
   * So many layers of the text model run as in evaluation, because nothing in and before them trains (`frozenDepth`). Default 0.
   * With `hidden`, those that have been run.
   */
  frozen_layers?: number;
}

export interface Blip2Options {
  /** A key puts that part in training mode (dropout). Without one it runs as in evaluation. */
  dropout?: { vision_model?: Key; qformer?: Key; language_model?: Key };
  /** Recompute layers in the backward pass. */
  checkpoint?: boolean;
  /** Allow images of another size than the checkpoint's, by interpolating its position embeddings. */
  interpolate_pos_encoding?: boolean;
  /** Called with every named intermediate; for parity tests. In `loss` the text model's have packed rows, the last one labelled rows only. */
  tap?: (name: string, x: Tensor) => void;
}

type Part = 'vision_model' | 'qformer' | 'language_model';

function stage(o: Blip2Options, part: Part): StageOptions {
  const { tap } = o;
  return {
    dropout: o.dropout?.[part],
    checkpoint: o.checkpoint,
    tap: tap && ((name, x) => tap(`${part}.${name}`, x)),
  };
}

/**
 * Vision tower: pixel_values [B, 3, S, S] → [B, N, Dv]. transformers: `get_image_features(…).last_hidden_state`.
 * No gradient reaches the pixels unless something in the tower trains.
 */
export function imageFeatures(
  { params, config }: Blip2,
  pixel_values: Tensor4D,
  o: Blip2Options = {},
): Tensor3D {
  const { interpolate_pos_encoding } = o;
  const { vision_model } = params;
  return part(vision_model, () =>
    encodeImages(vision_model, pixel_values, config.vision_config, {
      ...stage(o, 'vision_model'),
      interpolate_pos_encoding,
    }),
  );
}

/** One vector per image, from `imageFeatures` [B, N, Dv] → [B, Dv]. `Blip2Model.get_image_features(…).pooler_output`. */
export function pooledImage({ params, config }: Blip2, image_features: Tensor3D): Tensor2D {
  return poolImages(params.vision_model, image_features, config.vision_config);
}

export interface QueryOptions extends Blip2Options {
  /** A row for each image, if the Q-Former reads instructions. */
  instructions?: TextRows;
}

/** Q-Former alone: image_features [B, N, Dv] → [B, Q, Dq]. transformers: `Blip2Model.get_qformer_features`. */
export function qformerFeatures(
  { params, config }: Blip2,
  image_features: Tensor3D,
  { instructions, ...o }: QueryOptions = {},
): Tensor3D {
  const { qformer, query_tokens } = params;
  const [cfg, options] = [config.qformer_config, stage(o, 'qformer')];
  if (!('embeddings' in qformer)) return queryImages(qformer, query_tokens, image_features, cfg, options);
  if (!instructions)
    throw new ModelError('instructions: expected a row for each image, because the Q-Former reads them');
  const texts = embedWords(qformer.embeddings, instructions);
  const states = queryImages(withoutWords(qformer), query_tokens, image_features, cfg, { ...options, texts });
  return slice(states, [0, 0, 0], [states.shape[0], config.num_query_tokens, states.shape[2]]);
}

/**
 * Q-Former and projection: image_features [B, N, Dv] → [B, Q, Dt], the image's rows in the text model's input.
 * transformers: `Blip2ForConditionalGeneration.get_image_features(…).pooler_output`.
 */
export function queryEmbeds(model: Blip2, image_features: Tensor3D, o: QueryOptions = {}): Tensor3D {
  return linear(model.params.language_projection, qformerFeatures(model, image_features, o)); // [B, Q, Dq] → [B, Q, Dt]
}

/**
 * Input of the text model [B, T, Dt]: token embeddings with the image's rows in place of the image tokens.
 * @throws ModelError
 */
export function inputEmbeds(
  model: Blip2,
  image: ImageInput | undefined,
  tokens: TokenBatch,
  o: Blip2Options = {},
): Tensor3D {
  const [B, T] = tokens.shape;
  const read = readingsOf(model.config, tokens, imagesOf(image));
  const embeds = embedded(model, { image, read }, layout(model.config, read.tokens, read.count), o);
  return reshape(embeds, [B, T, embeds.shape[1]]);
}

/** Number of pictures. */
const imagesOf = (image: ImageInput | undefined) => image && Object.values(image)[0].shape[0];

/** Pictures, and how the Q-Former reads them. */
interface ReadImages {
  image: ImageInput | undefined;
  read: Readings;
}

/** The embeddings of the positions of a layout: [N, Dt]. */
function embedded(
  model: Blip2,
  { image, read }: ReadImages,
  { text, source }: Layout,
  o: Blip2Options,
): Tensor2D {
  const { language_model } = model.params;
  const embed = () => {
    const rows = languageModel(model.config).embed(language_model, text, [1, text.length]);
    return reshape<Tensor2D>(rows, [text.length, rows.shape[2]]);
  };
  if (!image) return embed();
  refuseProjectedEmbeddings(model);
  const queries = projectedQueries(model, image, read, o); // [R, Q, Dt]
  const [R, Q, D] = queries.shape;
  const parts = [reshape<Tensor2D>(queries, [R * Q, D])];
  if (text.length > 0) parts.unshift(embed());
  return gatherRows(concat(parts, 0), source);
}

function projectedQueries(model: Blip2, image: ImageInput, read: Readings, o: Blip2Options): Tensor3D {
  const { num_query_tokens: Q, text_config } = model.config;
  if ('query_embeds' in image) {
    if (read.instructions)
      throw new ModelError(
        'query_embeds: expected pixel_values or image_features, because the queries of this model depend on the instruction',
      );
    const [, q, d] = image.query_embeds.shape;
    if (q === Q && d === text_config.hidden_size) return image.query_embeds;
    throw new ModelError(
      `query_embeds: expected [B, ${Q}, ${text_config.hidden_size}], found [${image.query_embeds.shape}]`,
    );
  }
  const { vision_model, qformer, query_tokens, language_projection } = model.params;
  const afterVision = { qformer, query_tokens, language_projection };
  const { instructions } = read;
  const queries = (image_features: Tensor3D) =>
    queryEmbeds(model, imagesRead(image_features, read), { ...o, instructions });
  if ('image_features' in image) return part(afterVision, () => queries(image.image_features));
  return part({ vision_model, afterVision }, () => queries(imageFeatures(model, image.pixel_values, o)));
}

/** language_projection makes rows of width hidden_size, so narrower token embeddings (opt-350m) do not fit beside them. */
function refuseProjectedEmbeddings({ config }: Blip2): void {
  const t: TextConfig = config.text_config;
  if ((t.word_embed_proj_dim ?? t.hidden_size) === t.hidden_size) return;
  throw new ModelError(
    `text_config: word_embed_proj_dim (${t.word_embed_proj_dim}) must equal hidden_size (${t.hidden_size}) for image input; ` +
      'such a language model works with text only',
  );
}

/**
 * Scores of the next token at every position → logits [B, T, V]. Without an image the text model runs alone.
 * @throws ModelError when images and image tokens do not match
 */
export function forward(
  model: Blip2,
  image: ImageInput | undefined,
  tokens: TokenBatch,
  o: Blip2Options = {},
): { logits: Tensor3D } {
  const { params, config } = model;
  const x = inputEmbeds(model, image, tokens, o);
  const options = stage(o, 'language_model');
  const logits = languageModel(config).logits(params.language_model, config.text_config, x, tokens, options);
  return { logits };
}

/**
 * The input of layer `depth` of the text model at the packed positions of a batch [N, Dt], as in evaluation; `segmentsOf` says what
 * depends on what.
 * @throws ModelError as `loss`
 */
export function hiddenBelow(model: Blip2, image: ImageInput, tokens: TokenBatch, depth: number): Tensor2D {
  const read = readingsOf(model.config, tokens, imagesOf(image));
  const packed = pack(model.config, read.tokens, read.count);
  return lowerLayers(model, { image, read }, packed, { frozen_layers: depth });
}

/** The input of the first layer of the text model that is not frozen, or its embeddings. */
function lowerLayers(
  model: Blip2,
  images: ReadImages,
  packed: PackedLayout,
  { frozen_layers: depth = 0, ...o }: LossOptions,
): Tensor2D {
  const { params, config } = model;
  const { below } = languageModel(config);
  const { batch } = packed;
  if (depth === 0 || !below || !('packing' in batch)) return embedded(model, images, packed, o);
  const options = { depth, tap: stage(o, 'language_model').tap };
  return belowDepth(model, depth, () => {
    const x = embedded(model, images, packed, o);
    return below.hidden(params.language_model, config.text_config, x, batch.packing, options);
  });
}

/**
 * Mean cross-entropy of the next token over the labelled positions. Rows of one picture (`pictures` of the batch) share its positions
 * in the text model, and pads are not computed; without dropout, the result is that of separate rows. `label_smoothing` ε mixes in the mean over the
 * vocabulary, (1 − ε)·nll + ε·mean, as transformers' `LabelSmoother`.
 * @throws ModelError when nothing is labelled, padding would predict a label, or images and image tokens do not match
 */
export function loss(
  model: Blip2,
  input: LossInput | undefined,
  tokens: TokenBatch,
  { label_smoothing, ...o }: LossOptions = {},
): Scalar {
  const { params, config } = model;
  const given = input && 'hidden' in input ? input.hidden : undefined;
  const image = given ? undefined : (input as ImageInput | undefined);
  const read = readingsOf(config, tokens, given ? picturesOf(tokens) : imagesOf(image));
  const packed = pack(config, read.tokens, read.count);
  const x = given ? checkHidden(given, packed) : lowerLayers(model, { image, read }, packed, o);
  const options = { ...stage(o, 'language_model'), label_smoothing };
  const batch = { ...packed.batch, depth: o.frozen_layers || undefined };
  return languageModel(config).loss(params.language_model, config.text_config, x, batch, options);
}

function checkHidden(hidden: Tensor2D, { source }: PackedLayout): Tensor2D {
  if (hidden.shape[0] === source.length) return hidden;
  throw new ModelError(
    `hidden: expected the ${source.length} packed positions of the batch, found [${hidden.shape}]`,
  );
}
