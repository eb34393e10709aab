/** Strings that end a text. Reference: `StopStringCriteria` of transformers 5. */

/** Ids to text, special tokens included; the tokenizer of data-captions is one. */
export interface TextDecoder {
  decode(ids: readonly number[], skipSpecial: boolean): string;
}

/**
 * Whether the last id completes one of the strings, which may begin in earlier ids, the prompt's included. The last id's
 * text may continue after the string.
 */
export function endsWithStop(
  ids: readonly number[],
  stops: readonly string[],
  decoder: TextDecoder,
): boolean {
  if (stops.length === 0) return false;
  // A token has at least one byte, so as many tokens as the longest string has bytes are enough.
  const window = ids.slice(-Math.max(...stops.map((stop) => new TextEncoder().encode(stop).length)));
  const text = decoder.decode(window, false);
  const before = decoder.decode(window.slice(0, -1), false).replace(/\uFFFD+$/, ''); // may end within a character
  return stops.some((stop) => text.indexOf(stop, Math.max(0, before.length - stop.length + 1)) >= 0);
}
