/**
 * The interface between BLIP-2 and a text model; each package of a text model exports one such value. Types only.
 * B rows, T positions, U target positions, D hidden size, V vocabulary.
 */
import type { Packing } from './kernels';
import type { Linear, Scalar, StageOptions, Tensor2D, Tensor3D } from './ops';
import type { WeightTable } from './shapes';

/** The fields of `text_config` that every text model has, under their names in config.json. */
export interface TextConfig {
  model_type: string;
  vocab_size: number;
  /** Width of the hidden states, and of the image rows in the input. */
  hidden_size: number;
  num_hidden_layers: number;
  /** `seq2seq`: layers of the decoder; num_hidden_layers are the encoder's. */
  num_decoder_layers?: number;
  /** Most positions of a row, including the image; undefined if positions are relative. */
  max_position_embeddings?: number;
  /** Width of the token embeddings, if it may differ from hidden_size. */
  word_embed_proj_dim?: number;
  tie_word_embeddings: boolean;
  /** First token of every row; undefined if rows have no start token. */
  bos_token_id?: number;
  /** `seq2seq`: first token of the rows that the decoder writes. */
  decoder_start_token_id?: number;
  eos_token_id: number;
  pad_token_id: number;
}

/** Token rows on the host, row-major [B, T]. */
export interface TokenBatch {
  input_ids: Int32Array;
  /** 1 for tokens, 0 for padding. */
  attention_mask: Int32Array;
  /**
   * Expected ids, or negative (−100) for none. `causal`: [B, T], at the positions of input_ids; the loss shifts them.
   * `seq2seq`: [B, U], the target rows; the decoder's input is made from them.
   */
  labels?: Int32Array;
  /** `[B]`: the picture of each row, among P; rows may share one. Default: row b has picture b. */
  pictures?: Int32Array;
  shape: [B: number, T: number];
}

/** Two names of one tensor; an adapter or the checkpoint may give `alias` a separate tensor. */
export interface Tie {
  tensor: string;
  alias: string;
}

/** A batch without its ids, after `embed`. */
export type EmbeddedRows = Pick<TokenBatch, 'attention_mask' | 'shape' | 'labels'>;

/** A batch for the loss of a `seq2seq` model; the embeddings are beside it, [B·T, D]. */
export interface LabelledRows extends Required<EmbeddedRows> {
  /** `[C]`: the row of image and prompt of each of C target rows, labels being [C, U]. Default: row b has target b. */
  prompts?: Int32Array;
}

/**
 * A batch for the loss of a `causal` model, without pads, in which rows of one picture share its positions; the embeddings are
 * beside it, [N, D].
 */
export interface PackedBatch {
  packing: Packing;
  /** The ids [M] expected after the positions `predictors`. */
  labels: Int32Array;
  /** [M] of the N positions; they may repeat. */
  predictors: Int32Array;
  /** The layer whose input is beside it, from `below.hidden`. Default: embeddings. */
  depth?: number;
}

/** The lower layers of a text model, which run once for each picture and text if nothing trains in or before them. */
export interface LowerLayers<P extends object = object, C = TextConfig> {
  /** How many layers run before a tensor is used, by its name in `weights` without prefix; an adapter counts as its matrix. */
  layersBefore(cfg: C, name: string): number;
  /** The input of layer `depth`, as in evaluation: packed embeddings [N, D] → [N, D]. */
  hidden(
    p: P,
    cfg: C,
    inputs_embeds: Tensor2D,
    packing: Packing,
    o: Pick<StageOptions, 'tap'> & { depth: number },
  ): Tensor2D;
}

/** A text model with parameters P, configuration C and generation state S. */
export interface LanguageModel<P extends object = object, C extends TextConfig = TextConfig, S = unknown> {
  /** `causal`: prompt and target share a row. `seq2seq`: an encoder reads the prompt, a decoder writes the target. */
  readonly rows: 'causal' | 'seq2seq';
  /** The modules that the `lora` preset adapts, as suffixes of their names. */
  readonly lora_targets: readonly string[];
  /** The template of questions that BLIP-2's paper has for it, {} for the question; undefined: "Question: {} Answer:". */
  readonly vqa_prompt?: string;
  /** Reads `text_config`. @throws Error that names the field as `where.field` */
  parse(json: unknown, where: string): C;
  /** Name and shape of every tensor, each name after `prefix`; of tied names, `tensor` alone. */
  weights(cfg: C, prefix: string): WeightTable;
  /** The tensors that the configuration ties, named as in `weights`. */
  ties(cfg: C, prefix: string): readonly Tie[];
  /** Fields of `text_config` that follow from tie_word_embeddings unless they are written; a model that is untied gets them. */
  pinned?(cfg: C): Record<string, unknown>;
  /** The output layer [V, D]; of tied tensors, the one that is stored. */
  head(p: P): Linear;
  /** Token embeddings: ids [B·T] → [B, T, D]. @throws Error on an id outside the vocabulary */
  embed(p: P, ids: Int32Array, shape: [B: number, T: number]): Tensor3D;
  /** Scores of the next token at every position: inputs_embeds [B, T, D] → [B, T, V]; `seq2seq`: of the target rows, [B, U, V]. */
  logits(p: P, cfg: C, inputs_embeds: Tensor3D, rows: EmbeddedRows, o: StageOptions): Tensor3D;
  /**
   * Mean cross-entropy over the labelled tokens of the embeddings of a batch, [N, D]. `label_smoothing` ε gives (1 − ε)·nll + ε·mean over the vocabulary, as
   * transformers' `LabelSmoother`.
   */
  loss(
    p: P,
    cfg: C,
    inputs_embeds: Tensor2D,
    batch: PackedBatch | LabelledRows,
    o: StageOptions & { label_smoothing?: number },
  ): Scalar;
  /** Absent where later positions change what is computed of earlier ones. */
  readonly below?: LowerLayers<P, C>;
  /**
   * Reads the prompt: inputs_embeds [B, T, D] → scores [B, V] of the first new token. The state survives an enclosing `tidy`;
   * `free` disposes of it.
   */
  start(p: P, cfg: C, inputs_embeds: Tensor3D, attention_mask: Int32Array): { state: S; scores: Tensor2D };
  /**
   * Appends ids [B'], row i to row from[i] of the state, which may repeat or drop rows → scores [B', V] of the next token.
   * Do not use the previous state afterwards: the new one takes over its tensors, and disposes of those that no row reads any more.
   */
  step(p: P, cfg: C, state: S, ids: Int32Array, from: Int32Array): { state: S; scores: Tensor2D };
  /**
   * The rows of all states, in this order, as one state: texts that began at different times then take their steps together. A row
   * never sees the positions of another state. Do not use the given states afterwards.
   */
  join(states: readonly S[]): S;
  free(state: S): void;
  /** Absent where several tokens cannot be appended at once. */
  readonly drafts?: DraftSteps<P, C, S>;
}

/** Steps over several tokens of one text, to check a draft of them in one pass (Leviathan et al. 2023). */
export interface DraftSteps<P extends object = object, C = TextConfig, S = unknown> {
  /** Appends ids [T] to the only row of the state, which is taken over as in `step` → scores [T, V] of the token after each. */
  extend(p: P, cfg: C, state: S, ids: Int32Array): { state: S; scores: Tensor2D };
  /** Forgets the last `count` tokens of the last `extend`, but not all of them. Do not use the given state afterwards. */
  shorten(state: S, count: number): S;
}
