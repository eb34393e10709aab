// The words that a Q-Former reads beside its queries. Reference: transformers 5, `InstructBlipQFormerModel`
// (models/instructblip/modeling_instructblip.py) and `Blip2TextEmbeddings` (models/blip_2/modeling_blip_2.py).
// R texts, T tokens of the longest, W words, D hidden size.
import { add, embedding, gatherRows } from '@blip2/nn';
import type { Embedding, LayerNorm, Tensor, Tensor3D } from '@blip2/nn';
import type { QFormerModel, QFormerTexts } from './qformer';

/** Token rows of texts, padded on the right. */
export interface TextRows {
  input_ids: Int32Array;
  /** 1 for tokens, 0 for padding. */
  attention_mask: Int32Array;
  shape: [R: number, T: number];
}

/** Sizes of the tables, under their names in config.json. */
export interface WordsConfig {
  vocab_size: number;
  /** Most tokens of a text. */
  max_position_embeddings: number;
}

export interface WordTables {
  word_embeddings: Embedding; // [W, D]
  position_embeddings: Embedding; // [max_position_embeddings, D]
}

/** The parameters under `qformer.` of an InstructBLIP checkpoint: as in BLIP-2, with tables of words and positions. */
export interface InstructedQFormer {
  embeddings: WordTables & { layernorm: LayerNorm /* [D] */ };
  encoder: QFormerModel['encoder'];
}

/** InstructBLIP's Q-Former in the form that `queryImages` takes. */
export const withoutWords = ({ embeddings, encoder }: InstructedQFormer): QFormerModel => ({
  layernorm: embeddings.layernorm,
  encoder,
});

/** Words and their positions: [R, T, D]. @throws Error for ids or lengths that the tables do not have */
export function embedWords(
  { word_embeddings, position_embeddings }: WordTables,
  { input_ids, attention_mask, shape }: TextRows,
): QFormerTexts {
  const [R, T] = shape;
  if (input_ids.length !== R * T || attention_mask.length !== R * T)
    throw new Error(
      `texts: expected ${R} × ${T} ids and mask values, found ${input_ids.length}, ${attention_mask.length}`,
    );
  const [most] = position_embeddings.weight.shape;
  if (T > most) throw new Error(`texts: expected at most ${most} tokens, found ${T}`);
  const positions = Int32Array.from({ length: T }, (_, t) => t);
  const places: Tensor = gatherRows(position_embeddings.weight, positions);
  return {
    embeds: add(embedding(word_embeddings, input_ids, shape), places) as Tensor3D,
    mask: attention_mask,
  };
}
