/**
 * Rules that change one row of scores [V] on the host before a token is chosen.
 * Reference: `RepetitionPenaltyLogitsProcessor`, `NoRepeatNGramLogitsProcessor`, `MinNewTokensLengthLogitsProcessor` of transformers 5.
 */

export interface ScoreRules {
  /** Above 1 makes tokens that have occurred less likely; 1 does nothing. */
  repetition_penalty: number;
  /** No n tokens in a row occur twice; 0 allows all. */
  no_repeat_ngram_size: number;
  /** No end token can come before this many new tokens. */
  min_new_tokens: number;
  eos_token_id: readonly number[];
}

/** A row's history: the prompt with its padding, and the new tokens. */
export interface History {
  prompt: readonly number[];
  /** First position of the prompt that is not padding. */
  start: number;
  fresh: readonly number[];
}

/** Changes `scores` in place, in transformers' order. Greedy search passes logits, beam search log-probabilities. */
export function applyRules(scores: Float32Array, history: History, rules: ScoreRules): void {
  const { prompt, start, fresh } = history;
  if (rules.repetition_penalty !== 1)
    penalise(scores, [...prompt.slice(start), ...fresh], rules.repetition_penalty);
  if (rules.no_repeat_ngram_size > 0) banRepeats(scores, [...prompt, ...fresh], rules.no_repeat_ngram_size);
  if (fresh.length < rules.min_new_tokens) for (const id of rules.eos_token_id) scores[id] = -Infinity;
}

function penalise(scores: Float32Array, seen: number[], penalty: number): void {
  for (const id of new Set(seen)) scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
}

/** Bans each token that would repeat an n-gram. */
function banRepeats(scores: Float32Array, ids: number[], n: number): void {
  const begin = ids.length + 1 - n; // start of the last n − 1 tokens, which the next one would complete
  for (let i = 0; i + n <= ids.length; i++) {
    let same = true;
    for (let j = 0; same && j < n - 1; j++) same = ids[i + j] === ids[begin + j];
    if (same) scores[ids[i + n - 1]] = -Infinity;
  }
}

/** Natural logarithm of the summed exponentials. */
export function logSumExp(logits: Float32Array): number {
  let max = -Infinity;
  for (let i = 0; i < logits.length; i++) if (logits[i] > max) max = logits[i];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - max);
  return max + Math.log(sum);
}

/** Log-probabilities of logits. Plain loops, because iterators take three times as long for the V values per token and beam. */
export function logSoftmax(logits: Float32Array): Float32Array {
  const shift = logSumExp(logits);
  const out = new Float32Array(logits.length);
  for (let i = 0; i < out.length; i++) out[i] = logits[i] - shift;
  return out;
}

/** Index of the largest score; the first of equals. */
export function argMax(scores: Float32Array): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[best]) best = i;
  return best;
}

/** Indices of the k largest scores, descending; of equals the first comes first. */
export function topK(scores: ArrayLike<number>, k: number): number[] {
  const best: number[] = [];
  let least = -Infinity; // the lowest of `best` once it has k entries
  for (let i = 0; i < scores.length; i++) {
    const score = scores[i];
    const full = best.length === k;
    if (full && !(score > least)) continue;
    let at = full ? k - 1 : best.length;
    for (; at > 0 && score > scores[best[at - 1]]; at--) best[at] = best[at - 1];
    best[at] = i;
    if (best.length === k) least = scores[best[k - 1]];
  }
  return best;
}
