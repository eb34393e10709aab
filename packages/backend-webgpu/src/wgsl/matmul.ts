/**
 * c [M, N] = activation(a·b + bias) + low-rank + residual, in tiles of 8·RM rows, 64 columns and 16 summed numbers, RM rows and 8 columns for a thread. b is a weight in any
 * encoding: [N, K] if B_T, else [K, N]. LOW adds alpha·a2 [M, R]·b2: 1 with b2 [N, R], 2 with b2 [R, N] and dropout of the sum.
 */
export default /* wgsl */ `
struct Size {
  columns: u32, second: u32, third: u32, factors: u32,
  M: u32, N: u32, K: u32, first: u32,
  R: u32, key0: u32, key1: u32, least: u32,
  keep: f32, alpha: f32, at: u32, tiles: u32,
}
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read> a2: array<f32>;
@group(0) @binding(5) var<storage, read> b2: array<f32>;
@group(0) @binding(6) var<storage, read_write> c: array<f32>;
@group(0) @binding(7) var<uniform> size: Size;

const TM = 8u * RM;
var<workgroup> left: array<f32, 16u * TM>;
var<workgroup> right: array<array<f32, 65>, 16>;

fn a_at(m: u32, k: u32) -> f32 {
  if (m >= size.M || k >= size.K) { return 0.0; }
  if (A_T) { return a[k * size.M + m]; }
  let v = a[m * size.K + k];
  if (!DROP_A) { return v; }
  return select(0.0, v * size.keep, kept(vec2u(size.key0, size.key1), m * size.K + k, size.least));
}

fn load_a(tile: u32, k0: u32, thread: u32) {
  for (var i = 0u; i < 2u * RM; i++) {
    let e = thread + i * 64u;
    let m = select(e / 16u, e % TM, A_T);
    let k = select(e % 16u, e / TM, A_T);
    left[k * TM + m] = a_at(tile + m, k0 + k);
  }
}

fn b4(k: u32, n: u32) -> vec4f {
  if (k >= size.K || n >= size.N) { return vec4f(); }
  if (B_T) { return weight4(size.first + n, k); }
  var v = weight4(size.first + k, n);
  if (DROP_B) {
    for (var i = 0u; i < 4u; i++) {
      v[i] = select(0.0, v[i] * size.keep, kept(vec2u(size.key0, size.key1), k * size.N + n + i, size.least));
    }
  }
  return v;
}

fn load_b(tile: u32, k0: u32, thread: u32) {
  for (var i = 0u; i < 4u; i++) {
    let e = thread + i * 64u;
    let n = select(e % 16u * 4u, e / 4u, B_T);
    let k = select(e / 16u, e % 4u * 4u, B_T);
    let v = b4(k0 + k, tile + n);
    for (var j = 0u; j < 4u; j++) { right[k + select(0u, j, B_T)][n + select(j, 0u, B_T)] = v[j]; }
  }
}

@compute @workgroup_size(8, 8)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let m0 = group.y * TM;
  let n0 = group.x * 64u;
  let n = local.x * 4u;
  var near: array<vec4f, RM>;
  var far: array<vec4f, RM>;
  for (var k0 = 0u; k0 < size.K; k0 += 16u) {
    load_a(m0, k0, thread);
    load_b(n0, k0, thread);
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      let b0 = vec4f(right[k][n], right[k][n + 1u], right[k][n + 2u], right[k][n + 3u]);
      let b1 = vec4f(right[k][n + 32u], right[k][n + 33u], right[k][n + 34u], right[k][n + 35u]);
      for (var i = 0u; i < RM; i++) {
        let v = left[k * TM + local.y * RM + i];
        near[i] += v * b0;
        far[i] += v * b1;
      }
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < RM; i++) {
    for (var j = 0u; j < 4u; j++) {
      store(m0 + local.y * RM + i, n0 + n + j, near[i][j]);
      store(m0 + local.y * RM + i, n0 + n + 32u + j, far[i][j]);
    }
  }
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
