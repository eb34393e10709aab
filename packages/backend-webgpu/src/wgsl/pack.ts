/**
 * The rows of a [M, K] rounded to bfloat16, as 16-bit floats times a power of two (powers.ts), with zeros up to [rows, padded]. DIVIDE: column k
 * is divided by the power of row first + k of the weight that it is multiplied with. A group for a row.
 */
export default /* wgsl */ `
struct Size { M: u32, K: u32, padded: u32, first: u32, rows: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> w_powers: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> powers: array<f32>;
@group(0) @binding(4) var<uniform> size: Size;

fn at(m: u32, k: u32) -> f32 {
  if (m >= size.M || k >= size.K) { return 0.0; }
  var v = a[m * size.K + k];
  if (DIVIDE) { v *= inverse(w_powers[size.first + k]); }
  return rounded(v);
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let m = group.y * groups.x + group.x;
  var own = 0u;
  for (var k = thread; k < size.K; k += LANES) { own = max(own, magnitude(at(m, k))); }
  let power = power_of(largest(own, thread));
  if (m >= size.rows) { return; }
  for (var k = thread * 4u; k < size.padded; k += 4u * LANES) {
    let v = vec4f(at(m, k), at(m, k + 1u), at(m, k + 2u), at(m, k + 3u));
    packed[(m * size.padded + k) / 4u] = vec4<f16>(v * power);
  }
  if (thread == 0u) { powers[m] = power; }
}
`;
