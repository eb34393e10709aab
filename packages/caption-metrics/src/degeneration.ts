/** Signs that a model repeats itself or does not look at the picture. All figures are shares, 0 … 1. */
import { countNgrams, mean, words } from './ngrams';

export interface Degeneration {
  /** Mean share of n-grams that occurred earlier in the same text ("a hat on top of a hat on top of a hat"). */
  repeated_ngrams: number;
  /** Share of texts that were also generated for another picture. */
  identical_texts: number;
  /** Share of texts without a word. */
  empty_texts: number;
}

/** Measures the texts generated for many pictures. `n` is the length of the n-grams. */
export function degeneration(texts: readonly string[], n = 3): Degeneration {
  const said = texts.map((text) => words(text.toLowerCase()));
  const times = new Map<string, number>();
  for (const tokens of said) times.set(tokens.join(' '), (times.get(tokens.join(' ')) ?? 0) + 1);
  const share = (test: (tokens: string[]) => boolean) => mean(said.map((tokens) => (test(tokens) ? 1 : 0)));
  return {
    repeated_ngrams: mean(said.map((tokens) => repeatedShare(tokens, n))),
    identical_texts: share((tokens) => times.get(tokens.join(' '))! > 1),
    empty_texts: share((tokens) => tokens.length === 0),
  };
}

function repeatedShare(tokens: string[], n: number): number {
  const total = tokens.length - n + 1;
  return total < 1 ? 0 : 1 - countNgrams(tokens, n)[n - 1].size / total;
}

/**
 * Share of texts that change when the pictures are shuffled between rows. Near 0, the model ignores the picture.
 * @throws Error when the two lists differ in length
 */
export function changedShare(texts: readonly string[], shuffled: readonly string[]): number {
  if (texts.length !== shuffled.length)
    throw new Error(`changedShare: expected ${texts.length} texts, one per row, found ${shuffled.length}`);
  return mean(texts.map((text, i) => (text.trim() === shuffled[i].trim() ? 0 : 1)));
}
