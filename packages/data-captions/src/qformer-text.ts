/**
 * Token rows of texts for a Q-Former that reads them: `[CLS] … [SEP]`, as BERT's tokenizer makes them. Reference: HF
 * `InstructBlipProcessor`, whose `qformer_tokenizer` this is.
 */
import type { TokenRows } from './collate';
import { DataError, show } from './errors';
import type { Tokenizer } from './tokenizer';

export interface QFormerText {
  /** The ids of a text, and why the Q-Former cannot read it. */
  read(text: string): { ids: number[]; problem?: { expected: string; found: string } };
  /** The text of an id. */
  token(id: number): string;
  /** Most ids of a text. */
  most: number;
  pad: number;
}

/** The tokens that frame a text, and the pad. @param where names the tokenizer in errors @throws DataError if one is missing */
export function frameIds(tokenizer: Pick<Tokenizer, 'tokenId'>, where = 'tokenizer') {
  const [first, last, pad] = ['[CLS]', '[SEP]', '[PAD]'].map((token) => {
    const id = tokenizer.tokenId(token);
    if (id !== undefined) return id;
    throw new DataError(
      `${where}: expected the token ${token}, found none; a Q-Former that reads texts has BERT's tokenizer`,
    );
  });
  return { first, last, pad };
}

/** @param where names the tokenizer in errors @throws DataError as `frameIds` */
export function qformerText(tokenizer: Tokenizer, most: number, where?: string): QFormerText {
  const { first, last, pad } = frameIds(tokenizer, where);
  const read = (text: string) => {
    const ids = [first, ...tokenizer.encode(text), last];
    const written = ids.map((id) => tokenizer.special.get(id)).find((token) => token && text.includes(token));
    if (written !== undefined)
      return { ids, problem: problem('a prompt without special tokens', written, text) };
    if (ids.length <= most) return { ids };
    return {
      ids,
      problem: problem(`a prompt of at most ${most} tokens of the Q-Former`, String(ids.length), text),
    };
  };
  return { read: ofLast(read), token: (id) => tokenizer.decode([id], false), most, pad };
}

const problem = (expected: string, found: string, text: string) => ({
  expected,
  found: `${found} in ${show(text)}`,
});

/** The function with its last result kept: most rows have the same prompt. */
function ofLast<T>(make: (text: string) => T): (text: string) => T {
  let last: { text: string; result: T } | undefined;
  return (text) => {
    if (last?.text !== text) last = { text, result: make(text) };
    return last.result;
  };
}

/** Rows padded on the right to the longest. */
export function paddedRows(rows: readonly ArrayLike<number>[], pad: number): Omit<TokenRows, 'instructions'> {
  const T = Math.max(0, ...rows.map((row) => row.length));
  const input_ids = new Int32Array(rows.length * T).fill(pad); // [R, T]
  const attention_mask = new Int32Array(rows.length * T);
  rows.forEach((row, r) => {
    input_ids.set(row, r * T);
    attention_mask.fill(1, r * T, r * T + row.length);
  });
  return { input_ids, attention_mask, shape: [rows.length, T] };
}
