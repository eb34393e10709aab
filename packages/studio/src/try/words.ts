/** Tokens of a text, put together to words. */

export interface Word {
  text: string;
  /** places of its tokens */
  tokens: number[];
}

/** A word begins where the text of the tokens so far ends with a new space. */
export function wordsOf(ids: readonly number[], decode: (ids: readonly number[]) => string): Word[] {
  const words: Word[] = [];
  let before = '';
  ids.forEach((_, i) => {
    const text = decode(ids.slice(0, i + 1));
    const piece = text.startsWith(before) ? text.slice(before.length) : text;
    before = text;
    const last = words.at(-1);
    if (last && !/^\s/.test(piece)) {
      last.tokens.push(i);
      last.text += piece;
    } else words.push({ text: piece.trim(), tokens: [i] });
  });
  return words.filter(({ text }) => text !== '');
}
