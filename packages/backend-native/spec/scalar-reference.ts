// Scalar versions of the kernels in double precision, with which the specs compare C++.

/** c [M, N] = op(a) · op(b); a is stored [K, M] when transposed, b [N, K]. */
export function matMul(
  a: Float32Array,
  aT: boolean,
  b: Float32Array,
  bT: boolean,
  M: number,
  N: number,
  K: number,
) {
  const c = new Float64Array(M * N);
  for (let i = 0; i < M; i++)
    for (let j = 0; j < N; j++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += a[aT ? k * M + i : i * K + k]! * b[bT ? j * K + k : k * N + j]!;
      c[i * N + j] = sum;
    }
  return c;
}

/** Rounds to bfloat16 (8 significant bits), to nearest, ties to even. */
export function toBFloat16(values: Float32Array): Float32Array {
  const rounded = values.slice();
  const bits = new Uint32Array(rounded.buffer);
  for (let i = 0; i < bits.length; i++) {
    const lastKept = (bits[i]! >>> 16) & 1;
    bits[i] = (bits[i]! + 0x7fff + lastKept) & 0xffff0000;
  }
  return rounded;
}

/** A row as q [-127 … 127] times a scale, by the rules of int8_rows.h, in float32 arithmetic. NaN where the row is not finite. */
function toInt8(row: Float32Array): { q: Int8Array; scale: number } {
  const { fround, abs } = Math;
  const q = new Int8Array(row.length);
  const largest = row.reduce((most, x) => Math.max(most, abs(x)), 0);
  if (!Number.isFinite(largest)) return { q, scale: NaN };
  if (largest < 2 ** -100) return { q, scale: 0 };
  const inverse = fround(127 / largest);
  row.forEach((x, i) => (q[i] = toEven(fround(x * inverse))));
  return { q, scale: fround(largest / 127) };
}

/** The nearest whole number, ties to even. */
function toEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** The int8 encoding of a weight [rows, columns]: its numbers are q · scale · factor. */
export function int8Weight(w: Float32Array, rows: number, columns: number, factors: Float32Array) {
  const [q, scales] = [new Int8Array(rows * columns), new Float32Array(rows)];
  for (let n = 0; n < rows; n++) {
    const row = w
      .slice(n * columns, (n + 1) * columns)
      .map((x, k) => Math.fround(x * Math.fround(1 / factors[k]!)));
    const made = toInt8(row);
    q.set(made.q, n * columns);
    scales[n] = made.scale;
  }
  return { q, scales, factors };
}

/**
 * x [M, K] · wᵀ + bias with an int8 weight [N, K] or, not transposed, x · w with w [K, N]. x is rounded row by row. The sums are whole
 * numbers; every other step rounds to float32, so the result is exact.
 */
export function int8MatMul(
  x: Float32Array,
  { q, scales, factors }: ReturnType<typeof int8Weight>,
  transposed: boolean,
  bias: Float32Array | null,
): Float32Array {
  const { fround } = Math;
  const [before, after] = transposed ? [factors, scales] : [scales, factors];
  const [K, N] = [before.length, after.length];
  const y = new Float32Array((x.length / K) * N);
  for (let m = 0; m * K < x.length; m++) {
    const row = toInt8(x.slice(m * K, (m + 1) * K).map((v, k) => fround(v * before[k]!)));
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += row.q[k]! * q[transposed ? n * K + k : k * N + n]!;
      const scale = fround(after[n]! * row.scale);
      y[m * N + n] = fround(fround(fround(sum) * scale) + (bias?.[n] ?? 0));
    }
  }
  return y;
}

/**
 * The int4 encoding of a weight [rows, columns], by the rules of quantise_int4.cc: q [-8 … 7] times the step of its 64 columns, as one whole
 * number, so that `int8MatMul` is its matmul too.
 */
export function int4Weight(w: Float32Array, rows: number, columns: number, factors: Float32Array) {
  const { fround } = Math;
  const [q, scales, steps] = [new Int8Array(rows * columns), new Float32Array(rows), [] as number[][]];
  for (let n = 0; n < rows; n++) {
    const row = w.slice(n * columns, (n + 1) * columns).map((x, k) => fround(x * fround(1 / factors[k]!)));
    const largest = row.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const used = Number.isFinite(largest) && largest >= 2 ** -100;
    scales[n] = used ? fround(largest / 120) : Number.isFinite(largest) ? 0 : NaN;
    const inverse = fround(64 * fround(120 / largest));
    const v = Array.from(row, (x) => (used ? toEven(fround(x * inverse)) : 0));
    steps[n] = [];
    for (let k = 0; k < columns; k += 64) {
      const made = int4Group(v.slice(k, k + 64));
      steps[n]!.push(made.step);
      q.set(
        made.q.map((code) => code * made.step),
        n * columns + k,
      );
    }
  }
  return { q, scales, factors, steps };
}

/** The step with the least squared error, of the steps that lose at most half of the largest number. */
function int4Group(v: number[]): { step: number; q: number[] } {
  const largest = Math.max(...v.map(Math.abs));
  const codes = (step: number) =>
    v.map((x) => Math.min(7, Math.max(-8, toEven(Math.fround(x * Math.fround(1 / (64 * step)))))));
  let best = { step: 1, q: codes(1), error: Infinity };
  for (
    let step = Math.max(1, Math.ceil(largest / 1024));
    step <= Math.min(16, Math.ceil(largest / 448));
    step++
  ) {
    const q = codes(step);
    const error = v.reduce((sum, x, i) => sum + (x - q[i]! * step * 64) ** 2, 0);
    if (error < best.error) best = { step, q, error };
  }
  return best;
}

/** The bits of the nearest float16, ties to even; too large a number becomes infinite. */
export function toFloat16Bits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  // The distance between neighbours: 2^-24 below the smallest normal number, 2^-14.
  const step = 2 ** (Math.max(-14, Math.floor(Math.log2(size || 1))) - 10);
  const steps = size / step;
  const floor = Math.floor(steps);
  const rest = steps - floor;
  const rounded = step * (rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor);
  if (rounded > 65504) return sign | 0x7c00;
  if (rounded < 2 ** -14) return sign | (rounded * 2 ** 24);
  const exponent = Math.floor(Math.log2(rounded));
  return sign | ((exponent + 15) << 10) | (rounded * 2 ** (10 - exponent) - 1024);
}

export function fromFloat16Bits(bits: number): number {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** Φ(x) by the series of erf near zero and the continued fraction of erfc in the tails. */
export function normalCdf(x: number): number {
  const z = Math.abs(x) / Math.SQRT2;
  if (z < 3) {
    let term = z;
    let sum = z;
    for (let n = 1; n < 200 && Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (2 * z * z) / (2 * n + 1);
      sum += term;
    }
    const half = (sum * Math.exp(-z * z)) / Math.sqrt(Math.PI);
    return x < 0 ? 0.5 - half : 0.5 + half;
  }
  let fraction = 0;
  for (let n = 120; n > 0; n--) fraction = n / 2 / (z + fraction);
  const tail = Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction) / 2;
  return x < 0 ? tail : 1 - tail;
}

export function gelu(x: number): number {
  return x * normalCdf(x);
}

export function geluSlope(x: number): number {
  return normalCdf(x) + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);
}

/** 0.5·x·(1 + tanh u), u = √(2/π)·(x + 0.044715·x³), as x / (1 + e^(−2u)), which is accurate for negative x too. */
export function tanhGelu(x: number): number {
  return x / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

export function tanhGeluSlope(x: number): number {
  const e = Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3));
  const twiceSlope = 2 * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x ** 2);
  return 1 / (1 + e) + (x * twiceSlope * e) / (1 + e) ** 2;
}

/** Uniform number of one element of a Philox4x32-10 stream (Salmon et al. 2011). */
export function uniform(element: number, key0: number, key1: number): number {
  return (philox([Math.floor(element / 4), 0, 0, 0], key0, key1)[element % 4]! >>> 8) * 2 ** -24;
}

export function philox(counter: number[], key0: number, key1: number): number[] {
  let c = counter.map((word) => BigInt(word >>> 0));
  let k = [BigInt(key0), BigInt(key1)];
  const low = 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c[0]!;
    const p1 = 0xcd9e8d57n * c[2]!;
    c = [(p1 >> 32n) ^ c[1]! ^ k[0]!, p1 & low, (p0 >> 32n) ^ c[3]! ^ k[1]!, p0 & low];
    k = [(k[0]! + 0x9e3779b9n) & low, (k[1]! + 0xbb67ae85n) & low];
  }
  return c.map(Number);
}

export interface AttentionCase {
  B: number;
  Tq: number;
  Tk: number;
  D: number;
  H: number;
  scale: number;
  causal: boolean;
  dropout: number;
  key0: number;
  key1: number;
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
  keyMask: Float32Array | null;
  /** [B, H, Tq, Tk], or [1, H, Tq, Tk] for all items. */
  bias: Float32Array | null;
}

/** Output, log-sum-exp and, given dout, the gradients; that of the bias is empty without one. */
export function attention(c: AttentionCase, dout: Float32Array) {
  const { B, Tq, Tk, D, H } = c;
  const d = D / H;
  const out = new Float64Array(B * Tq * D);
  const lse = new Float64Array(B * H * Tq);
  const dq = new Float64Array(B * Tq * D);
  const dk = new Float64Array(B * Tk * D);
  const dv = new Float64Array(B * Tk * D);
  const dbias = new Float64Array(c.bias?.length ?? 0);
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let i = 0; i < Tq; i++) {
        const row = (b * H + h) * Tq + i;
        const atBias = (row * Tk) % Math.max(1, dbias.length);
        const atQ = (b * Tq + i) * D + h * d;
        const atK = (j: number) => (b * Tk + j) * D + h * d;
        const keys = [...Array(Tk).keys()].filter(
          (j) => (!c.causal || j <= i + Tk - Tq) && (!c.keyMask || c.keyMask[b * Tk + j] !== 0),
        );
        lse[row] = -1e30;
        if (keys.length === 0) continue;
        const dotAt = (x: ArrayLike<number>, xi: number, y: ArrayLike<number>, yi: number) => {
          let sum = 0;
          for (let n = 0; n < d; n++) sum += x[xi + n]! * y[yi + n]!;
          return sum;
        };
        const s = keys.map((j) => dotAt(c.q, atQ, c.k, atK(j)) * c.scale + (c.bias?.[atBias + j] ?? 0));
        const largest = Math.max(...s);
        lse[row] = largest + Math.log(s.reduce((sum, x) => sum + Math.exp(x - largest), 0));
        const p = s.map((x) => Math.exp(x - lse[row]!));
        const factor = keys.map((j) =>
          c.dropout > 0 ? (uniform(row * Tk + j, c.key0, c.key1) >= c.dropout ? 1 / (1 - c.dropout) : 0) : 1,
        );
        keys.forEach((j, n) => {
          for (let l = 0; l < d; l++) out[atQ + l]! += p[n]! * factor[n]! * c.v[atK(j) + l]!;
        });
        const dp = keys.map((j, n) => dotAt(dout, atQ, c.v, atK(j)) * factor[n]!);
        const mean = dp.reduce((sum, x, n) => sum + x * p[n]!, 0);
        keys.forEach((j, n) => {
          const ds = p[n]! * (dp[n]! - mean) * c.scale;
          if (c.bias) dbias[atBias + j]! += p[n]! * (dp[n]! - mean);
          for (let l = 0; l < d; l++) {
            dq[atQ + l]! += ds * c.k[atK(j) + l]!;
            dk[atK(j) + l]! += ds * c.q[atQ + l]!;
            dv[atK(j) + l]! += p[n]! * factor[n]! * dout[atQ + l]!;
          }
        });
      }
  return { out, lse, dq, dk, dv, dbias };
}
