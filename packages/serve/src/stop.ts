/** Stop strings of OpenAI's requests, which are not part of the answer. */

/**
 * The text before the first stop string. While the text still grows, an end that could become a stop string is held back.
 */
export function beforeStop(text: string, stops: readonly string[], grows = false): string {
  const at = Math.min(...stops.map((stop) => text.indexOf(stop)).filter((i) => i >= 0), text.length);
  if (at < text.length || !grows) return text.slice(0, at);
  const held = Math.max(0, ...stops.map((stop) => longestStart(text, stop)));
  return text.slice(0, text.length - held);
}

/** Length of the longest end of the text that a stop string begins with. */
function longestStart(text: string, stop: string): number {
  for (let n = Math.min(stop.length - 1, text.length); n > 0; n--)
    if (text.endsWith(stop.slice(0, n))) return n;
  return 0;
}
