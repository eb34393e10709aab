/** y [columns] = the largest magnitude of each column of a weight in any encoding. Magnitudes are compared as integers, which orders infinity and NaN. */
export default /* wgsl */ `
struct Size { columns: u32, second: u32, third: u32, factors: u32, rows: u32, unused0: u32, unused1: u32, unused2: u32 }
@group(0) @binding(0) var<storage, read> w: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x * 4u;
  if (column >= size.columns) { return; }
  var most = vec4u();
  for (var row = 0u; row < size.rows; row++) {
    most = max(most, bitcast<vec4u>(weight4(row, column)) & vec4u(0x7fffffffu));
  }
  for (var i = 0u; i < 4u; i++) {
    if (column + i < size.columns) { y[column + i] = most[i]; }
  }
}
`;
