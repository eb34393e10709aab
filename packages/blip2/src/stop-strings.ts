/** Ends of texts that are spelled out. Reference: `StopStringCriteria` of transformers 5. */

/** Ids to text, special tokens included, as data-captions' tokenizer has it. */
export interface TextDecoder {
  decode(ids: readonly number[], skipSpecial: boolean): string;
}

/**
 * Whether the last id completes one of the strings: it ends within that id's text, which may go on after it. Earlier ids,
 * the prompt's among them, may hold its beginning.
 */
export function endsWithStop(
  ids: readonly number[],
  stops: readonly string[],
  decoder: TextDecoder,
): boolean {
  if (stops.length === 0) return false;
  // A token holds at least one byte, and the strings' bytes bound how many tokens can matter.
  const window = ids.slice(-Math.max(...stops.map((stop) => Buffer.byteLength(stop))));
  const text = decoder.decode(window, false);
  const before = decoder.decode(window.slice(0, -1), false).replace(/\uFFFD+$/, ''); // half a character may be open
  return stops.some((stop) => text.indexOf(stop, Math.max(0, before.length - stop.length + 1)) >= 0);
}
