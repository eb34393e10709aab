/**
 * Multi-head attention with a streaming softmax (Milakov & Gimelshein 2018; Dao et al. 2022). A group has T queries of a head and reads T
 * keys at a time; scores are never in memory. D numbers of a head. With INDEXED, key j of item b is the row at[b, j] of k and v.
 */
export const size = /* wgsl */ `
struct Size {
  H: u32, Tq: u32, Tk: u32, biases: u32,
  key0: u32, key1: u32, least: u32, keep: f32,
  scale: f32, items: u32, unused0: u32, unused1: u32,
}
fn hidden(b: u32, i: u32, j: u32) -> bool {
  if (i >= size.Tq || j >= size.Tk) { return true; }
  if (CAUSAL && j + size.Tq > i + size.Tk) { return true; }
  if (MASK) { return mask[b * size.Tk + j] == 0.0; }
  return false;
}
fn score(b: u32, h: u32, i: u32, j: u32, product: f32) -> f32 {
  if (!BIAS) { return product * size.scale; }
  return product * size.scale + bias[((b % size.biases * size.H + h) * size.Tq + i) * size.Tk + j];
}
fn drop(b: u32, h: u32, i: u32, j: u32) -> f32 {
  if (!DROP) { return 1.0; }
  let element = ((b * size.H + h) * size.Tq + i) * size.Tk + j;
  return select(0.0, size.keep, kept(vec2u(size.key0, size.key1), element, size.least));
}
`;

export default /* wgsl */ `
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> at: array<i32>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
@group(0) @binding(7) var<storage, read_write> lse: array<f32>;
@group(0) @binding(8) var<uniform> size: Size;

const C = (D + T - 1u) / T;
var<workgroup> queries: array<f32, T * D>;
var<workgroup> tile: array<f32, T * D>;
var<workgroup> scores: array<f32, T * T>;
var<workgroup> shares: array<f32, T * T>;

fn key_row(b: u32, j: u32) -> u32 {
  if (INDEXED) { return u32(at[b * size.Tk + j]); }
  return b * size.Tk + j;
}

@compute @workgroup_size(T * T)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let h = group.y;
  let b = group.z;
  let row = thread / T;
  let lane = thread % T;
  let first = group.x * T;
  let i = first + row;
  for (var e = thread; e < T * D; e += T * T) {
    let r = first + e / D;
    queries[e] = 0.0;
    if (r < size.Tq) { queries[e] = q[((b * size.Tq + r) * size.H + h) * D + e % D]; }
  }
  var end = size.Tk;
  if (CAUSAL) { end = u32(clamp(i32(first + T + size.Tk) - i32(size.Tq), 0, i32(size.Tk))); }
  var sum: array<f32, C>;
  var top = -3e38;
  var total = 0.0;
  for (var j0 = 0u; j0 < end; j0 += T) {
    for (var e = thread; e < T * D; e += T * T) {
      tile[e] = 0.0;
      if (j0 + e / D < size.Tk) { tile[e] = k[(key_row(b, j0 + e / D) * size.H + h) * D + e % D]; }
    }
    workgroupBarrier();
    let j = j0 + lane;
    let away = hidden(b, i, j);
    var s = -3e38;
    if (!away) {
      var product = 0.0;
      for (var c = 0u; c < D; c++) { product += queries[row * D + c] * tile[lane * D + c]; }
      s = score(b, h, i, j, product);
    }
    scores[thread] = s;
    workgroupBarrier();
    for (var e = thread; e < T * D; e += T * T) {
      tile[e] = 0.0;
      if (j0 + e / D < size.Tk) { tile[e] = v[(key_row(b, j0 + e / D) * size.H + h) * D + e % D]; }
    }
    var most = top;
    for (var l = 0u; l < T; l++) { most = max(most, scores[row * T + l]); }
    workgroupBarrier();
    let share = select(exp_of(s - most), 0.0, away);
    scores[thread] = share;
    if (away) { shares[thread] = 0.0; } else { shares[thread] = share * drop(b, h, i, j); }
    workgroupBarrier();
    let fade = select(exp_of(top - most), 1.0, top == most);
    total *= fade;
    for (var l = 0u; l < T; l++) { total += scores[row * T + l]; }
    for (var c = 0u; c < C; c++) {
      let column = lane + c * T;
      var part = 0.0;
      if (column < D) {
        for (var l = 0u; l < T; l++) { part += shares[row * T + l] * tile[l * D + column]; }
      }
      sum[c] = sum[c] * fade + part;
    }
    top = most;
    workgroupBarrier();
  }
  if (i >= size.Tq) { return; }
  let seen = !(total == 0.0); // true of NaN, unlike total != 0
  for (var c = 0u; c < C; c++) {
    let column = lane + c * T;
    if (column < D) {
      out[((b * size.Tq + i) * size.H + h) * D + column] = select(0.0, sum[c] / total, seen);
    }
  }
  if (LSE && lane == 0u) { lse[(b * size.H + h) * size.Tq + i] = select(-1e30, top + log_of(total), seen); }
}
`;
