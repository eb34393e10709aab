/**
 * Counter-based randomness: a value depends on (key, index) alone, never on call order, backend or threads, so runs
 * repeat and resume exactly and recomputation under gradient checkpointing draws the same numbers.
 * Generator: Philox4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).
 */
export interface Key {
  readonly k0: number;
  readonly k1: number;
}

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** High 32 bits of an unsigned 32 × 32 product. */
function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(carry / 65536)) >>> 0;
}

/** One Philox block: writes four uint32 words for the counter (c0, c1, c2, 0) under `key` into `out`. */
export function philox(key: Key, c0: number, c1: number, c2: number, out: Uint32Array): void {
  let [x0, x1, x2, x3, k0, k1] = [c0 >>> 0, c1 >>> 0, c2 >>> 0, 0, key.k0 >>> 0, key.k1 >>> 0];
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = mulHigh(MULTIPLIER_0, x0);
    const low0 = Math.imul(MULTIPLIER_0, x0) >>> 0;
    const high1 = mulHigh(MULTIPLIER_1, x2);
    const low1 = Math.imul(MULTIPLIER_1, x2) >>> 0;
    x0 = (high1 ^ x1 ^ k0) >>> 0;
    x1 = low1;
    x2 = (high0 ^ x3 ^ k1) >>> 0;
    x3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

/** Key of a run, from an integer seed in 0 … 2⁵³ − 1. */
export function rngKey(seed: number): Key {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(`rngKey: expected a seed that is an integer in 0 … 2^53 − 1, found ${seed}`);
  }
  return { k0: seed >>> 0, k1: Math.floor(seed / 2 ** 32) >>> 0 };
}

function hashText(text: string): number {
  let hash = 0x811c9dc5; // FNV-1a, 32 bits
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** Independent sub-stream of `key`, named by a non-negative integer or a text. */
export function fold(key: Key, data: number | string): Key {
  const words = new Uint32Array(4);
  if (typeof data === 'string') philox(key, hashText(data), data.length, 2, words);
  else philox(key, data >>> 0, Math.floor(data / 2 ** 32) >>> 0, 1, words);
  return { k0: words[0], k1: words[1] };
}

/** The first `n` words of the stream: element e is word e mod 4 of block ⌊e / 4⌋. */
export function randomWords(key: Key, n: number): Uint32Array {
  const out = new Uint32Array(Math.ceil(n / 4) * 4);
  for (let block = 0; block < out.length / 4; block++) {
    philox(key, block >>> 0, Math.floor(block / 2 ** 32), 0, out.subarray(block * 4, block * 4 + 4));
  }
  return out.subarray(0, n);
}

/** `n` uniform float32 values in [0, 1), 24 random bits each. */
export function uniform(key: Key, n: number): Float32Array {
  return Float32Array.from(randomWords(key, n), (word) => (word >>> 8) * 2 ** -24);
}

/** `n` standard normal float32 values (Box–Muller on pairs of words). */
export function normal(key: Key, n: number): Float32Array {
  const words = randomWords(key, n + (n % 2));
  const out = new Float32Array(words.length);
  for (let i = 0; i < words.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((words[i] + 1) * 2 ** -32));
    const angle = 2 * Math.PI * words[i + 1] * 2 ** -32;
    out[i] = radius * Math.cos(angle);
    out[i + 1] = radius * Math.sin(angle);
  }
  return out.subarray(0, n);
}

/** A uniformly drawn order of 0 … n − 1 (Fisher–Yates). */
export function permutation(key: Key, n: number): Int32Array {
  const order = Int32Array.from({ length: n }, (_, i) => i);
  const words = randomWords(key, n);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor((words[i] / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
