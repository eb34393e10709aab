/**
 * y [N] = Σ over M rows of x, or with OF 1 of dy·x·rstd, or with OF 2 of dy·(x − mean)·rstd. 16 columns for a group; a thread adds every
 * 16th row, 64 at a time, since one long chain of additions loses digits.
 */
export default /* wgsl */ `
struct Size { M: u32, N: u32, unused0: u32, unused1: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> size: Size;

var<workgroup> parts: array<f32, 256>;

fn term(row: u32, column: u32) -> f32 {
  let v = x[row * size.N + column];
  if (OF == 0u) { return v; }
  let g = dy[row * size.N + column] * rstd[row];
  return g * (v - select(0.0, mean[row], OF == 2u));
}

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let column = group.x * 16u + local.x;
  var sum = 0.0;
  if (column < size.N) {
    for (var begin = local.y; begin < size.M; begin += 1024u) {
      var part = 0.0;
      for (var row = begin; row < min(begin + 1024u, size.M); row += 16u) { part += term(row, column); }
      sum += part;
    }
  }
  parts[thread] = sum;
  workgroupBarrier();
  if (local.y > 0u || column >= size.N) { return; }
  for (var i = 1u; i < 16u; i++) { sum += parts[thread + 16u * i]; }
  y[column] = sum;
}
`;
