/**
 * METEOR in NLTK's formulation: exact matches, then matches of Porter stems, then (only when given) synonyms.
 * It is not METEOR 1.5, the Java program behind COCO's figure, which also has paraphrase tables, function words and
 * other weights; figures of the two must not be compared.
 * Reference: A. Lavie, A. Agarwal, METEOR (2007); nltk.translate.meteor_score.
 */
import { words } from './ngrams';
import { stem } from './porter';

export interface MeteorOptions {
  /** All words that may stand for a word. Without it only exact and stem matches count, as with an empty WordNet. */
  synonyms?: (word: string) => Iterable<string>;
  alpha?: number;
  beta?: number;
  gamma?: number;
}

type Numbered = [position: number, word: string];
type Match = [candidate: number, reference: number];

/** The best METEOR of a tokenised candidate against its tokenised references, 0 … 1. */
export function meteor(
  candidate: string,
  references: readonly string[],
  options: MeteorOptions = {},
): number {
  return Math.max(...references.map((reference) => meteorPair(candidate, reference, options)));
}

function meteorPair(candidate: string, reference: string, options: MeteorOptions): number {
  const { alpha = 0.9, beta = 3, gamma = 0.5 } = options;
  const said = numbered(candidate);
  const wanted = numbered(reference);
  const matches = align(said, wanted, options.synonyms);
  if (matches.length === 0) return 0;
  const precision = matches.length / said.length;
  const recall = matches.length / wanted.length;
  const mean = (precision * recall) / (alpha * precision + (1 - alpha) * recall);
  const fragmentation = chunks(matches) / matches.length;
  return (1 - gamma * fragmentation ** beta) * mean;
}

const numbered = (text: string) => words(text).map((word, i): Numbered => [i, word.toLowerCase()]);

function align(said: Numbered[], wanted: Numbered[], synonyms: MeteorOptions['synonyms']): Match[] {
  const matches: Match[] = [];
  const stages: ((word: string) => string)[] = [(word) => word, stem];
  for (const form of stages) [said, wanted] = take(said, wanted, form, (word) => [form(word)], matches);
  if (synonyms) {
    const meanings = (word: string) => [word, ...synonyms(word)];
    take(said, wanted, (word) => word, meanings, matches);
  }
  return matches.sort((a, b) => a[0] - b[0]);
}

/** Matches words from last to first, each with the last unmatched reference word. Returns the matches and the words left over. */
function take(
  said: Numbered[],
  wanted: Numbered[],
  form: (word: string) => string,
  accepted: (word: string) => string[],
  matches: Match[],
): [Numbered[], Numbered[]] {
  const free = new Map<string, number[]>();
  wanted.forEach(([, word], j) => free.set(form(word), [...(free.get(form(word)) ?? []), j]));
  const used = [new Set<number>(), new Set<number>()];
  for (let i = said.length - 1; i >= 0; i--) {
    const places = accepted(said[i][1]).flatMap((word) => free.get(word)?.at(-1) ?? []);
    if (places.length === 0) continue;
    const j = Math.max(...places);
    free.get(form(wanted[j][1]))!.pop();
    used[0].add(i);
    used[1].add(j);
    matches.push([said[i][0], wanted[j][0]]);
  }
  return [said.filter((_, i) => !used[0].has(i)), wanted.filter((_, j) => !used[1].has(j))];
}

/** Number of chunks: runs of matches that are adjacent in both texts. */
function chunks(matches: Match[]): number {
  return matches.filter(
    ([i, j], at) => at === 0 || i !== matches[at - 1][0] + 1 || j !== matches[at - 1][1] + 1,
  ).length;
}
