/**
 * What the shaders of products share: c [M, N] = activation(a·b + bias) + low-rank + residual. b is a weight in any encoding: [N, K] if B_T, else
 * [K, N]. LOW adds alpha·a2 [M, R]·b2: 1 with b2 [N, R], 2 with b2 [R, N] and dropout of the sum. ROUND_A and ROUND_B round a and b to bfloat16. HALF: they
 * are in 16-bit floats, each row of a and of the weight times a power of two (powers.ts), by which sums are divided.
 */
export default /* wgsl */ `
struct Size {
  columns: u32, second: u32, third: u32, factors: u32,
  M: u32, N: u32, K: u32, first: u32,
  R: u32, key0: u32, key1: u32, least: u32,
  keep: f32, alpha: f32, at: u32, padded: u32,
}
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read> a2: array<f32>;
@group(0) @binding(5) var<storage, read> b2: array<f32>;
@group(0) @binding(6) var<storage, read_write> c: array<f32>;
@group(0) @binding(7) var<storage, read> a_powers: array<f32>;
@group(0) @binding(8) var<storage, read> w_powers: array<f32>;
@group(0) @binding(9) var<uniform> size: Size;

fn b4(k: u32, n: u32) -> vec4f {
  if (k >= size.K || n >= size.N) { return vec4f(); }
  let row = size.first + select(k, n, B_T);
  var v = weight4(row, select(n, k, B_T));
  if (DROP_B) {
    for (var i = 0u; i < 4u; i++) {
      v[i] = select(0.0, v[i] * size.keep, kept(vec2u(size.key0, size.key1), k * size.N + n + i, size.least));
    }
  }
  if (ROUND_B) { v = rounded4(v); }
  if (HALF) { v *= w_powers[row]; }
  return v;
}

fn low_rank(m: u32, n: u32) -> f32 {
  var sum = 0.0;
  for (var r = 0u; r < size.R; r++) {
    sum += a2[m * size.R + r] * b2[select(r * size.N + n, n * size.R + r, LOW == 1u)];
  }
  if (LOW == 2u && size.least > 0u) {
    return select(0.0, sum * size.keep, kept(vec2u(size.key0, size.key1), m * size.N + n, size.least));
  }
  return sum * size.alpha;
}

fn store(m: u32, n: u32, sum: f32) {
  if (m >= size.M || n >= size.N) { return; }
  var v = sum;
  if (HALF) {
    v *= inverse(a_powers[m]);
    if (B_T) { v *= inverse(w_powers[size.first + n]); }
  }
  if (SCALED) { v *= size.alpha; }
  if (BIAS) { v += bias[n]; }
  if (ACT == 1u) { v = gelu(v); }
  if (ACT == 2u) { v = max(v, 0.0); }
  let at = m * size.N + n;
  if (LOW > 0u) { v += low_rank(m, n); }
  if (RESIDUAL) { v += residual[at]; }
  if (ADDS) { v += c[size.at + at]; }
  c[size.at + at] = v;
}
`;
