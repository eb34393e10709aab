/**
 * Counter-based random numbers for shuffling: a number depends only on (seed, stream, counter), so the order of an epoch
 * is the same on every machine and in a resumed run.
 *
 * The generator chains the 32-bit finalizer of MurmurHash3 (public domain, Austin Appleby) over the four words
 * seed low, seed high, stream and counter, adding the golden ratio 0x9e3779b9 before each step, so that small
 * consecutive inputs give unrelated outputs. It is for ordering data, not for cryptography.
 */

const GOLDEN = 0x9e3779b9;

/** MurmurHash3's finalizer: a bijection of the 32-bit words in which every input bit affects every output bit. */
function mix(word: number): number {
  let h = word | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Random 32-bit word number `counter` of a stream; `seed` is an integer from 0 to 2^53 − 1. */
export function randomWord(seed: number, stream: number, counter: number): number {
  let h = 0;
  for (const word of [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, stream >>> 0, counter >>> 0]) {
    h = mix(((h ^ word) + GOLDEN) | 0);
  }
  return h;
}

/** A uniform permutation of 0 … n−1 (Fisher–Yates), the same for the same (seed, stream, n). */
export function permutation(seed: number, stream: number, n: number): Int32Array {
  const order = Int32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor((randomWord(seed, stream, i) / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** @throws RangeError unless `seed` is an integer from 0 to 2^53 − 1 */
export function checkSeed(seed: number): void {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(`seed: expected an integer from 0 to 2^53 − 1, found ${seed}`);
  }
}
