/**
 * Layer norm and RMSNorm of rows x [M, N], a group for each row. OP: 0 forward, 1 gradient of x. MEAN: layer norm. Statistics are sums of
 * sums: each thread adds every 64th number, 32 at a time.
 */
export default /* wgsl */ `
struct Size { M: u32, N: u32, eps: f32, unused: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(7) var<uniform> size: Size;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y * groups.x + group.x;
  if (row >= size.M) { return; }
  let at = row * size.N;
  let n = f32(size.N);
  var v = vec2f();
  if (OP == 0u) {
    var center = 0.0;
    if (MEAN) {
      for (var begin = thread; begin < size.N; begin += 32u * LANES) {
        var part = 0.0;
        for (var i = begin; i < min(begin + 32u * LANES, size.N); i += LANES) { part += x[at + i]; }
        v.x += part;
      }
      center = total(v, thread).x / n;
      v.x = 0.0;
    }
    for (var begin = thread; begin < size.N; begin += 32u * LANES) {
      var part = 0.0;
      for (var i = begin; i < min(begin + 32u * LANES, size.N); i += LANES) {
        let d = x[at + i] - center;
        part += d * d;
      }
      v.x += part;
    }
    let scale = 1.0 / sqrt(total(v, thread).x / n + size.eps);
    for (var i = thread; i < size.N; i += LANES) {
      y[at + i] = (x[at + i] - center) * scale * weight[i] + select(0.0, bias[i], MEAN);
    }
    if (thread == 0u) {
      rstd[row] = scale;
      if (MEAN) { mean[row] = center; }
    }
    return;
  }
  let center = select(0.0, mean[row], MEAN);
  let scale = rstd[row];
  for (var i = thread; i < size.N; i += LANES) {
    let g = dy[at + i] * weight[i];
    v += vec2f(g, g * (x[at + i] - center) * scale);
  }
  v = total(v, thread) / n;
  for (var i = thread; i < size.N; i += LANES) {
    let g = dy[at + i] * weight[i];
    y[at + i] = scale * (g - select(0.0, v.x, MEAN) - (x[at + i] - center) * scale * v.y);
  }
}
`;
