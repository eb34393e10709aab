/** Token rows of texts, as BERT's tokenizer makes them. */
import { frameIds, paddedRows } from '@blip2/data-captions';
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

/** @throws DataError if the tokenizer has no [CLS], [SEP] or [PAD] */
export function wordIds(tokenizer: Pick<Tokenizer, 'tokenId'>): WordIds {
  const frame = frameIds(tokenizer);
  return { ...frame, start: tokenizer.tokenId('[DEC]') ?? frame.first };
}

/**
 * `[CLS] … [SEP]` of each text, padded on the right to the longest. A text with more tokens than there are positions is cut, as
 * transformers' truncation does.
 * @throws DataError if the tokenizer has no [CLS], [SEP] or [PAD]
 */
export function textRows(tokenizer: Tokenizer, texts: readonly string[], cfg: RetrievalConfig): TextRows {
  const { first, last, pad } = wordIds(tokenizer);
  const most = cfg.max_position_embeddings - 2;
  return paddedRows(
    texts.map((text) => [first, ...tokenizer.encode(text).slice(0, most), last]),
    pad,
  );
}
