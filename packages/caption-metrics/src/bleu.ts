/** BLEU-1 … BLEU-4 over a corpus and per sentence. Reference: pycocoevalcap's Bleu, reference length "closest". */
import { countNgrams, words } from './ngrams';

const N = 4;
/** pycocoevalcap adds these against division by zero. They also decide its scores for empty texts. */
const SMALL = 1e-9;
const TINY = 1e-15;

interface Counts {
  length: number;
  referenceLength: number;
  guessed: number[];
  correct: number[];
}

export interface Bleu {
  /** BLEU-1 … BLEU-4 of all sentences together. */
  corpus: number[];
  /** BLEU-1 … BLEU-4 of each sentence. */
  sentences: number[][];
}

/** Scores tokenised candidates against their tokenised references. */
export function bleu(candidates: readonly string[], references: readonly (readonly string[])[]): Bleu {
  const counts = candidates.map((candidate, i) => countMatches(candidate, references[i]));
  const total: Counts = { length: 0, referenceLength: 0, guessed: zeros(), correct: zeros() };
  for (const one of counts) {
    total.length += one.length;
    total.referenceLength += one.referenceLength;
    for (let n = 0; n < N; n++) {
      total.guessed[n] += one.guessed[n];
      total.correct[n] += one.correct[n];
    }
  }
  return { corpus: scores(total), sentences: counts.map(scores) };
}

const zeros = () => new Array<number>(N).fill(0);

function countMatches(candidate: string, references: readonly string[]): Counts {
  const tokens = words(candidate);
  const said = countNgrams(tokens, N);
  const wanted = references.map((reference) => words(reference));
  const most = wanted.map((reference) => countNgrams(reference, N));
  const correct = said.map((grams, n) =>
    [...grams].reduce(
      (sum, [gram, count]) => sum + Math.min(count, Math.max(...most.map((m) => m[n].get(gram) ?? 0))),
      0,
    ),
  );
  return {
    length: tokens.length,
    referenceLength: closest(
      tokens.length,
      wanted.map((reference) => reference.length),
    ),
    guessed: Array.from({ length: N }, (_, n) => Math.max(0, tokens.length - n)),
    correct,
  };
}

/** The reference length closest to the candidate's; the shorter one in a tie. */
function closest(length: number, lengths: number[]): number {
  return [...lengths].sort((a, b) => Math.abs(a - length) - Math.abs(b - length) || a - b)[0];
}

function scores({ length, referenceLength, guessed, correct }: Counts): number[] {
  const ratio = (length + TINY) / (referenceLength + SMALL);
  const brevity = ratio < 1 ? Math.exp(1 - 1 / ratio) : 1;
  let product = 1;
  return guessed.map((count, n) => {
    product *= (correct[n] + TINY) / (count + SMALL);
    return product ** (1 / (n + 1)) * brevity;
  });
}
