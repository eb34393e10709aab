/**
 * Backward passes of attention.ts, which compute the scores again (Dao et al. 2022). `stats` has of each query its lse and Σ dout·out.
 * `queries` computes dq, `keys` dk and dv, `bias` the gradient of the bias.
 */
const inputs = /* wgsl */ `
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> stats: array<vec2f>;
@group(0) @binding(6) var<storage, read> dout: array<f32>;
`;

/** Tiles of T rows of q and dout, and of k and v. Of a pair: the share after dropout, and the gradient of its score. */
const tiles = /* wgsl */ `
const C = (D + T - 1u) / T;
var<workgroup> tile_q: array<f32, T * D>;
var<workgroup> tile_d: array<f32, T * D>;
var<workgroup> tile_k: array<f32, T * D>;
var<workgroup> tile_v: array<f32, T * D>;
var<workgroup> shares: array<f32, T * T>;
var<workgroup> slopes: array<f32, T * T>;

fn load_queries(b: u32, h: u32, first: u32, thread: u32) {
  for (var e = thread; e < T * D; e += T * T) {
    let r = first + e / D;
    let place = ((b * size.Tq + r) * size.H + h) * D + e % D;
    tile_q[e] = 0.0;
    tile_d[e] = 0.0;
    if (r < size.Tq) {
      tile_q[e] = q[place];
      tile_d[e] = dout[place];
    }
  }
}

fn load_keys(b: u32, h: u32, first: u32, thread: u32) {
  for (var e = thread; e < T * D; e += T * T) {
    let r = first + e / D;
    let place = ((b * size.Tk + r) * size.H + h) * D + e % D;
    tile_k[e] = 0.0;
    tile_v[e] = 0.0;
    if (r < size.Tk) {
      tile_k[e] = k[place];
      tile_v[e] = v[place];
    }
  }
}

fn pair(b: u32, h: u32, i: u32, j: u32, of_q: u32, of_k: u32) -> vec2f {
  if (hidden(b, i, j)) { return vec2f(); }
  var product = 0.0;
  var dshare = 0.0;
  for (var c = 0u; c < D; c++) {
    product += tile_q[of_q * D + c] * tile_k[of_k * D + c];
    dshare += tile_d[of_q * D + c] * tile_v[of_k * D + c];
  }
  let known = stats[(b * size.H + h) * size.Tq + i];
  let share = exp_of(score(b, h, i, j, product) - known.x);
  let factor = drop(b, h, i, j);
  return vec2f(share * factor, share * (dshare * factor - known.y));
}
`;

export const stats = /* wgsl */ `
@group(0) @binding(0) var<storage, read> out: array<f32>;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<vec2f>;
struct Size { count: u32, H: u32, Tq: u32, unused: u32 }
@group(0) @binding(4) var<uniform> size: Size;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let at = (group.y * groups.x + group.x) * 256u + thread;
  if (at >= size.count) { return; }
  let i = at % size.Tq;
  let h = at / size.Tq % size.H;
  let place = ((at / size.Tq / size.H * size.Tq + i) * size.H + h) * D;
  var sum = 0.0;
  for (var c = 0u; c < D; c++) { sum += out[place + c] * dout[place + c]; }
  stats[at] = vec2f(lse[at], sum);
}
`;

export const queries = /* wgsl */ `
${inputs}
@group(0) @binding(7) var<storage, read_write> dq: array<f32>;
@group(0) @binding(8) var<uniform> size: Size;
${tiles}
@compute @workgroup_size(T * T)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let h = group.y;
  let b = group.z;
  let row = thread / T;
  let lane = thread % T;
  let first = group.x * T;
  load_queries(b, h, first, thread);
  var end = size.Tk;
  if (CAUSAL) { end = u32(clamp(i32(first + T + size.Tk) - i32(size.Tq), 0, i32(size.Tk))); }
  var sum: array<f32, C>;
  for (var j0 = 0u; j0 < end; j0 += T) {
    load_keys(b, h, j0, thread);
    workgroupBarrier();
    slopes[thread] = pair(b, h, first + row, j0 + lane, row, lane).y;
    workgroupBarrier();
    for (var c = 0u; c < C; c++) {
      let column = lane + c * T;
      if (column < D) {
        for (var l = 0u; l < T; l++) { sum[c] += slopes[row * T + l] * tile_k[l * D + column]; }
      }
    }
    workgroupBarrier();
  }
  if (first + row >= size.Tq) { return; }
  for (var c = 0u; c < C; c++) {
    let column = lane + c * T;
    if (column < D) { dq[((b * size.Tq + first + row) * size.H + h) * D + column] = sum[c] * size.scale; }
  }
}
`;

export const keys = /* wgsl */ `
${inputs}
@group(0) @binding(7) var<storage, read_write> dk: array<f32>;
@group(0) @binding(8) var<storage, read_write> dv: array<f32>;
@group(0) @binding(9) var<uniform> size: Size;
${tiles}
@compute @workgroup_size(T * T)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let h = group.y;
  let b = group.z;
  let row = thread / T;
  let lane = thread % T;
  let first = group.x * T;
  load_keys(b, h, first, thread);
  var begin = 0u;
  if (CAUSAL) { begin = u32(max(i32(first + size.Tq) - i32(size.Tk), 0)) / T * T; }
  var sum_k: array<f32, C>;
  var sum_v: array<f32, C>;
  for (var i0 = begin; i0 < size.Tq; i0 += T) {
    load_queries(b, h, i0, thread);
    workgroupBarrier();
    let one = pair(b, h, i0 + lane, first + row, lane, row);
    shares[thread] = one.x;
    slopes[thread] = one.y;
    workgroupBarrier();
    for (var c = 0u; c < C; c++) {
      let column = lane + c * T;
      if (column < D) {
        for (var l = 0u; l < T; l++) {
          sum_v[c] += shares[row * T + l] * tile_d[l * D + column];
          sum_k[c] += slopes[row * T + l] * tile_q[l * D + column];
        }
      }
    }
    workgroupBarrier();
  }
  if (first + row >= size.Tk) { return; }
  for (var c = 0u; c < C; c++) {
    let column = lane + c * T;
    let to = ((b * size.Tk + first + row) * size.H + h) * D + column;
    if (column < D) {
      dk[to] = sum_k[c] * size.scale;
      dv[to] = sum_v[c];
    }
  }
}
`;

export const bias = /* wgsl */ `
${inputs}
@group(0) @binding(7) var<storage, read_write> dbias: array<f32>;
@group(0) @binding(8) var<uniform> size: Size;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let at = (group.y * groups.x + group.x) * 256u + thread;
  let each = size.H * size.Tq * size.Tk;
  if (at >= size.biases * each) { return; }
  let j = at % size.Tk;
  let i = at / size.Tk % size.Tq;
  let h = at / size.Tk / size.Tq % size.H;
  var sum = 0.0;
  for (var b = at / each; b < size.items; b += size.biases) {
    if (hidden(b, i, j)) { continue; }
    let of_q = ((b * size.Tq + i) * size.H + h) * D;
    let of_k = ((b * size.Tk + j) * size.H + h) * D;
    var product = 0.0;
    var dshare = 0.0;
    for (var c = 0u; c < D; c++) {
      product += q[of_q + c] * k[of_k + c];
      dshare += dout[of_q + c] * v[of_k + c];
    }
    let known = stats[(b * size.H + h) * size.Tq + i];
    sum += exp_of(score(b, h, i, j, product) - known.x) * (dshare * drop(b, h, i, j) - known.y);
  }
  dbias[at] = sum;
}
`;
