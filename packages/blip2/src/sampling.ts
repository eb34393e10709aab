/**
 * Sampling on the host: transforms a row of logits [V], then draws a token.
 * Reference: `TemperatureLogitsWarper`, `TopKLogitsWarper` and `TopPLogitsWarper` of transformers 5, in that order.
 */
import { fold, rngKey, uniform } from '@blip2/nn';
import type { Key } from '@blip2/nn';

export interface SamplingRules {
  /** Above 1 flattens the distribution, below 1 sharpens it; 1 does nothing. */
  temperature: number;
  /** Only the k likeliest tokens (and those as likely as the last of them); 0 allows all. */
  top_k: number;
  /** Only the likeliest tokens whose probabilities sum to at least top_p; 1 allows all. */
  top_p: number;
}

/** Changes `scores` in place: what may not be drawn becomes −∞. */
export function warpScores(scores: Float32Array, { temperature, top_k, top_p }: SamplingRules): void {
  if (temperature !== 1) for (let i = 0; i < scores.length; i++) scores[i] /= temperature;
  if (top_k > 0 && top_k < scores.length) keepTopK(scores, top_k);
  if (top_p < 1) keepTopP(scores, top_p);
}

function keepTopK(scores: Float32Array, k: number): void {
  const least = Float32Array.from(scores).sort()[scores.length - k]; // typed arrays sort by number
  for (let i = 0; i < scores.length; i++) if (scores[i] < least) scores[i] = -Infinity;
}

/** Drops tokens, the least likely first, while their probabilities sum to at most 1 − top_p; the likeliest stays. */
function keepTopP(scores: Float32Array, top_p: number): void {
  const probs = softmax(scores);
  const order = [...probs.keys()].sort((a, b) => scores[a] - scores[b]); // stable, as the reference's sort
  let sum = 0;
  for (const id of order.slice(0, -1)) {
    sum += probs[id];
    if (sum > 1 - top_p) return;
    scores[id] = -Infinity;
  }
}

/** Probabilities of scores, in double precision; −∞ gives 0. */
export function softmax(scores: Float32Array): Float64Array {
  let max = -Infinity;
  for (const x of scores) if (x > max) max = x;
  const probs = Float64Array.from(scores, (x) => Math.exp(x - max));
  let sum = 0;
  for (const p of probs) sum += p;
  return probs.map((p) => p / sum);
}

/** The token at which the running sum of the probabilities passes `u` in [0, 1). */
export function drawToken(probs: Float64Array, u: number): number {
  let sum = 0;
  let last = 0;
  for (let id = 0; id < probs.length; id++) {
    if (probs[id] === 0) continue;
    sum += probs[id];
    last = id;
    if (u < sum) return id;
  }
  return last; // rounding may leave the sum below 1
}

/** Random stream of one text; it depends on the seed and the text's number, not on the batch. */
export function textKey(seed: number, text: number): Key {
  return fold(fold(rngKey(seed), 'sampling'), text);
}

/** The number in [0, 1) that chooses token `position` of a text. */
export function drawOf(key: Key, position: number): number {
  return uniform(fold(key, position), 1)[0];
}
