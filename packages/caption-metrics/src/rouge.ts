/** ROUGE-L: the longest common subsequence as F-measure with β = 1.2. Reference: pycocoevalcap's Rouge. */

const BETA2 = 1.2 ** 2;

/** Scores a tokenised candidate. As in the reference, best precision and best recall may come from different references. */
export function rougeL(candidate: string, references: readonly string[]): number {
  const words = candidate.split(' '); // an empty text is one empty word, as in pycocoevalcap
  let [precision, recall] = [0, 0];
  for (const reference of references) {
    const wanted = reference.split(' ');
    const common = commonSubsequence(words, wanted);
    precision = Math.max(precision, common / words.length);
    recall = Math.max(recall, common / wanted.length);
  }
  if (precision === 0 || recall === 0) return 0;
  return ((1 + BETA2) * precision * recall) / (recall + BETA2 * precision);
}

function commonSubsequence(a: string[], b: string[]): number {
  let row = new Array<number>(b.length + 1).fill(0);
  for (const word of a) {
    const next = [0];
    for (let j = 0; j < b.length; j++) next.push(word === b[j] ? row[j] + 1 : Math.max(row[j + 1], next[j]));
    row = next;
  }
  return row[b.length];
}
