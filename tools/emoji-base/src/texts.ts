// The texts of pretraining, tokenised once.
import { baseCaption } from '@blip2/emoji-captions';
import type { BaseData } from './base-data';
import { trainBpe } from './bpe';
import type { Bpe } from './bpe';
import { SPECIALS, VOCAB_SIZE } from './model-files';
import { wordnetLines } from './wordnet';

/** English lines for tokenizer and language loss. */
const LINES = 50_000;
/** Tokens of a line that the language loss reads. */
const LINE_TOKENS = 24;
/** Tokens of label and tags that name a concept in the contrastive loss. */
const BAG_TOKENS = 32;

export interface ItemTokens {
  /** The label, and the label after `a` or `an`. */
  plain: number[];
  article: number[];
  /** Distinct tokens of label and tags. */
  bag: number[];
}

export interface Texts {
  items: ItemTokens[];
  /** Number of English lines; `line(i)` tokenises on demand, because most runs read only some of them. */
  lineCount: number;
  line(i: number): { ids: number[]; whole: boolean };
}

/** The tokenizer of the base: English lines once, the labels of the training images four times. */
export function trainTokenizer(data: BaseData): Bpe {
  const labels = data.items.filter((item) => item.use === 'base').map((item) => item.label);
  const texts = [...wordnetLines(LINES), ...labels, ...labels, ...labels, ...labels];
  return trainBpe(texts, VOCAB_SIZE, SPECIALS);
}

/** @param encode text to ids, without special tokens */
export function tokenise(data: BaseData, encode: (text: string) => number[]): Texts {
  const known = new Map<string, number[]>();
  const ids = (text: string) => {
    const found = known.get(text) ?? encode(text);
    known.set(text, found);
    return found;
  };
  const items = data.items.map((item) => ({
    plain: ids(item.label),
    article: ids(baseCaption(item, true)),
    bag: [...new Set([item.label, ...item.tags].flatMap(ids))].slice(0, BAG_TOKENS),
  }));
  const lines = wordnetLines(LINES);
  const line = (i: number) => {
    const all = encode(lines[i]);
    return { ids: all.slice(0, LINE_TOKENS), whole: all.length <= LINE_TOKENS };
  };
  return { items, lineCount: lines.length, line };
}
