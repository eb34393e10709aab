/** Products with weights in 8 bits, the largest part of whose error is that x is rounded to 8 bits, too: here x has twice as many. */

/** The largest q of a row. */
const MOST = 127;

/**
 * x [M, K] as a sum of two matrices, one after the other in `parts` [2·M, K]: x as the product would round it, and what that leaves. The
 * product rounds the first without an error and the second to a 254th of the first one's step. `factors` [K] are those of the weight's
 * columns. A row with NaN or infinity stays as it is.
 */
export function splitRows(x: Float32Array, factors: Float32Array, parts: Float32Array): void {
  const K = factors.length;
  for (let begin = 0; begin < x.length; begin += K) {
    let most = 0;
    for (let k = 0; k < K; k++) most = Math.max(most, Math.abs(x[begin + k]! * factors[k]!));
    const step = most / MOST;
    const rounds = step > 0 && step < Infinity;
    for (let k = 0; k < K; k++) {
      const value = x[begin + k]!;
      const first = rounds ? (Math.round((value * factors[k]!) / step) * step) / factors[k]! : value;
      parts[begin + k] = first;
      parts[x.length + begin + k] = rounds ? value - first : 0;
    }
  }
}

/** The sum of the two halves of `parts` [2·M, N] → y [M, N]. */
export function addHalves(parts: Float32Array, y: Float32Array): void {
  for (let i = 0; i < y.length; i++) y[i] = parts[i]! + parts[y.length + i]!;
}
