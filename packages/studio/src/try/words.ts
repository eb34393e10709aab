/** Tokens of a text, put together to words. */
import type { TextToken } from '@blip2/captioner';
import type { TriedWord } from '../api';

/** A word begins with a token whose text begins with a space. */
export function wordsOf(tokens: readonly TextToken[]): TriedWord[] {
  const words: TextToken[][] = [];
  for (const token of tokens) {
    const last = words.at(-1);
    if (last && !/^\s/.test(token.text)) last.push(token);
    else words.push([token]);
  }
  return words.map(wordOf).filter(({ text }) => text !== '');
}

function wordOf(tokens: readonly TextToken[]): TriedWord {
  const maps = tokens.flatMap(({ attention_map }) => (attention_map ? [attention_map] : []));
  return {
    text: tokens
      .map(({ text }) => text)
      .join('')
      .trim(),
    probability: tokens.reduce((product, token) => product * token.probability, 1),
    ...(maps.length > 0 && { map: sumOf(maps) }),
  };
}

/** The sum of some maps, relative to its largest value. */
function sumOf(maps: readonly (readonly number[])[]): number[] {
  const sums = maps[0].map((_, n) => maps.reduce((sum, map) => sum + map[n], 0));
  const most = Math.max(...sums);
  return sums.map((value) => (most > 0 ? Number((value / most).toFixed(3)) : 0));
}
