/**
 * A product (product.ts) of M rows, up to 8, and a transposed weight, as a generated token needs it: each weight is read once. 16 threads for an
 * output, 4 outputs of each row for a group.
 */
export default /* wgsl */ `
@group(0) @binding(0) var<storage, read> a: array<f32>;

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
`;
