/**
 * CIDEr and CIDEr-D with the document frequencies of the references at hand.
 * Reference: Vedantam, Zitnick, Parikh (arXiv:1411.5726). pycocoevalcap's "CIDEr", the figure that papers report,
 * is CIDEr-D: clipped counts and a Gaussian length penalty, σ = 6. `cider` is the paper's plain form without both.
 */
import { countNgrams, mean, words } from './ngrams';

const N = 4;
const SIGMA = 6;

export interface Cider {
  /** Mean over the images. */
  corpus: number;
  /** One figure per image, 0 … 10. */
  images: number[];
}

type Grams = Map<string, number>[];
interface Weighted {
  weights: Grams;
  norms: number[];
  /** Number of bigrams; pycocoevalcap uses it as the length. */
  length: number;
}

/** Plain CIDEr of tokenised candidates against their tokenised references. With a single image every figure is 0. */
export function cider(candidates: readonly string[], references: readonly (readonly string[])[]): Cider {
  return compute(candidates, references, plainSimilarity);
}

/** CIDEr-D, named CIDEr in pycocoevalcap. With a single image every figure is 0. */
export function ciderD(candidates: readonly string[], references: readonly (readonly string[])[]): Cider {
  return compute(candidates, references, clippedSimilarity);
}

function compute(
  candidates: readonly string[],
  references: readonly (readonly string[])[],
  similarity: (said: Weighted, wanted: Weighted) => number,
): Cider {
  const wanted = references.map((texts) => texts.map((text) => countNgrams(words(text), N)));
  const weigh = weigher(wanted);
  const images = candidates.map((candidate, i) => {
    const said = weigh(countNgrams(words(candidate), N));
    return 10 * mean(wanted[i].map((grams) => similarity(said, weigh(grams))));
  });
  return { corpus: mean(images), images };
}

/** Turns counts into tf–idf weights. An n-gram in the references of n images has the weight log(images / n). */
function weigher(references: Grams[][]): (grams: Grams) => Weighted {
  const frequency = new Map<string, number>();
  for (const texts of references) {
    const seen = new Set(texts.flatMap((grams) => grams.flatMap((counts) => [...counts.keys()])));
    for (const gram of seen) frequency.set(gram, (frequency.get(gram) ?? 0) + 1);
  }
  const total = Math.log(references.length);
  return (grams) => {
    const weights = grams.map(
      (counts) =>
        new Map(
          [...counts].map(([gram, n]) => [
            gram,
            n * (total - Math.log(Math.max(1, frequency.get(gram) ?? 0))),
          ]),
        ),
    );
    const norms = weights.map((w) => Math.sqrt([...w.values()].reduce((sum, x) => sum + x * x, 0)));
    const length = [...(grams[1]?.values() ?? [])].reduce((sum, n) => sum + n, 0);
    return { weights, norms, length };
  };
}

const cosine = (dot: number, a: number, b: number) => (a !== 0 && b !== 0 ? dot / (a * b) : dot);

function plainSimilarity(said: Weighted, wanted: Weighted): number {
  const dot = (n: number) =>
    [...said.weights[n]].reduce((sum, [gram, w]) => sum + w * (wanted.weights[n].get(gram) ?? 0), 0);
  return mean(said.norms.map((norm, n) => cosine(dot(n), norm, wanted.norms[n])));
}

function clippedSimilarity(said: Weighted, wanted: Weighted): number {
  const dot = (n: number) =>
    [...said.weights[n]].reduce((sum, [gram, w]) => {
      const other = wanted.weights[n].get(gram) ?? 0;
      return sum + Math.min(w, other) * other;
    }, 0);
  const penalty = Math.exp(-((said.length - wanted.length) ** 2) / (2 * SIGMA ** 2));
  return penalty * mean(said.norms.map((norm, n) => cosine(dot(n), norm, wanted.norms[n])));
}
