/** The text of a growing row of ids, in pieces that are never taken back. */

/** Pieces of the text that `decode` makes of ids. Put together they are the text of all ids. */
export function textPieces(decode: (ids: readonly number[]) => string) {
  const ids: number[] = [];
  let sent = '';
  const after = (text: string): string => {
    const piece = text.slice(sent.length);
    sent = text;
    return piece;
  };
  return {
    /** What the next id adds; nothing while a character is incomplete, which decodes to U+FFFD. */
    next(id: number): string {
      ids.push(id);
      const text = decode(ids);
      return text.endsWith('\uFFFD') || !text.startsWith(sent) ? '' : after(text);
    },
    /** What an id would add; empty for one that completes no character. */
    would(id: number): string {
      const text = decode([...ids, id]);
      return text.endsWith('\uFFFD') || !text.startsWith(sent) ? '' : text.slice(sent.length);
    },
    /** What the last id leaves over. */
    rest: (): string => after(decode(ids)),
    text: (): string => decode(ids),
  };
}
