/** The power of two of each row of a weight, for 16-bit floats (powers.ts). A group for a row. */
export default /* wgsl */ `
struct Size { columns: u32, second: u32, third: u32, factors: u32, rows: u32 }
@group(0) @binding(0) var<storage, read> w: array<u32>;
@group(0) @binding(1) var<storage, read_write> powers: array<f32>;
@group(0) @binding(2) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y * groups.x + group.x;
  var own = 0u;
  if (row < size.rows) {
    for (var k = thread * 4u; k < size.columns; k += 4u * LANES) { own = max(own, magnitude4(rounded4(weight4(row, k)))); }
  }
  let top = largest(own, thread);
  if (thread == 0u && row < size.rows) { powers[row] = power_of(top); }
}
`;
