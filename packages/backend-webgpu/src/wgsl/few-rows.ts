/**
 * c [M, N] = activation(a [M, K]·weightᵀ + bias) + low-rank + residual for M up to 8, as a generated token needs it: each weight is read
 * once. 16 threads for an output, 4 outputs of each row for a group. LOW as in matmul.ts, 1 only.
 */
export default /* wgsl */ `
struct Size {
  columns: u32, second: u32, third: u32, factors: u32,
  N: u32, K: u32, R: u32, groups: u32,
  alpha: f32, unused0: u32, unused1: u32, unused2: u32,
}
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read> a2: array<f32>;
@group(0) @binding(5) var<storage, read> b2: array<f32>;
@group(0) @binding(6) var<storage, read_write> c: array<f32>;
@group(0) @binding(7) var<uniform> size: Size;

var<workgroup> sums: array<array<f32, 64>, M>;

fn a4(m: u32, k: u32) -> vec4f {
  var v = vec4f();
  for (var i = 0u; i < 4u; i++) {
    if (k + i < size.K) { v[i] = a[m * size.K + k + i]; }
  }
  return v;
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let n = (group.y * groups.x + group.x) * 4u + thread / 16u;
  var sum: array<f32, M>;
  if (n < size.N) {
    for (var k = thread % 16u * 4u; k < size.K; k += 64u) {
      let b = weight4(n, k);
      for (var m = 0u; m < M; m++) { sum[m] += dot(a4(m, k), b); }
    }
  }
  for (var m = 0u; m < M; m++) { sums[m][thread] = sum[m]; }
  workgroupBarrier();
  if (n >= size.N) { return; }
  for (var m = thread % 16u; m < M; m += 16u) {
    var v = 0.0;
    for (var i = 0u; i < 16u; i++) { v += sums[m][thread / 16u * 16u + i]; }
    store(m, n, v);
  }
}

fn store(m: u32, n: u32, sum: f32) {
  var v = sum;
  if (BIAS) { v += bias[n]; }
  if (ACT == 1u) { v = gelu(v); }
  if (ACT == 2u) { v = max(v, 0.0); }
  if (LOW > 0u) {
    var low = 0.0;
    for (var r = 0u; r < size.R; r++) { low += a2[m * size.R + r] * b2[n * size.R + r]; }
    v += low * size.alpha;
  }
  if (RESIDUAL) { v += residual[m * size.N + n]; }
  c[m * size.N + n] = v;
}
`;
