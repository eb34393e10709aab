/** Token rows of texts, as BERT's tokenizer makes them. */
import { ModelError } from '@blip2/blip2';
import type { Tokenizer } from '@blip2/data-captions';
import type { RetrievalConfig } from './config';
import type { TextRows } from './model';

/** The tokens of BERT's tokenizer that frame a text. `start` begins a text that is generated: LAVIS's [DEC], or [CLS] without it. */
export interface WordIds {
  first: number;
  last: number;
  pad: number;
  start: number;
}

/** @throws ModelError if the tokenizer has no [CLS], [SEP] or [PAD] */
export function wordIds(tokenizer: Pick<Tokenizer, 'tokenId'>): WordIds {
  const [first, last, pad] = ['[CLS]', '[SEP]', '[PAD]'].map((token) => {
    const id = tokenizer.tokenId(token);
    if (id !== undefined) return id;
    throw new ModelError(
      `tokenizer: expected the token ${token}, found none; a model for retrieval has BERT's tokenizer`,
    );
  });
  return { first, last, pad, start: tokenizer.tokenId('[DEC]') ?? first };
}

/**
 * `[CLS] … [SEP]` of each text, padded on the right to the longest. A text with more tokens than there are positions is cut, as
 * transformers' truncation does.
 * @throws ModelError if the tokenizer has no [CLS], [SEP] or [PAD]
 */
export function textRows(tokenizer: Tokenizer, texts: readonly string[], cfg: RetrievalConfig): TextRows {
  const { first, last, pad } = wordIds(tokenizer);
  const most = cfg.max_position_embeddings - 2;
  const rows = texts.map((text) => [first, ...tokenizer.encode(text).slice(0, most), last]);
  const T = Math.max(0, ...rows.map((row) => row.length));
  const at = (i: number) => rows[Math.floor(i / T)][i % T];
  const length = { length: rows.length * T };
  return {
    input_ids: Int32Array.from(length, (_, i) => at(i) ?? pad),
    attention_mask: Int32Array.from(length, (_, i) => (at(i) === undefined ? 0 : 1)),
    shape: [rows.length, T],
  };
}
