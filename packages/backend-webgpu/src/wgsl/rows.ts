/** Rows of a table in any encoding as float32: with INDEXED those with the given indices, otherwise the first M. */
export default /* wgsl */ `
struct Size {
  columns: u32, second: u32, third: u32, factors: u32,
  M: u32, unused0: u32, unused1: u32, unused2: u32,
}
@group(0) @binding(0) var<storage, read> w: array<u32>;
@group(0) @binding(1) var<storage, read> indices: array<i32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y * groups.x + group.x;
  if (row >= size.M) { return; }
  var place = row;
  if (INDEXED) { place = u32(indices[row]); }
  for (var column = thread * 4u; column < size.columns; column += 256u) {
    let v = weight4(place, column);
    for (var i = 0u; i < min(4u, size.columns - column); i++) { y[row * size.columns + column + i] = v[i]; }
  }
}
`;
