/** dx [rows, D]: for each row, the sum of the rows of dy [M, D] that have its index, in their order. A group for each row. */
export default /* wgsl */ `
struct Size { rows: u32, D: u32, M: u32, unused: u32 }
@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> indices: array<i32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> size: Size;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y * groups.x + group.x;
  if (row >= size.rows) { return; }
  for (var column = thread; column < size.D; column += 64u) {
    var sum = 0.0;
    for (var begin = 0u; begin < size.M; begin += 256u) {
      var part = 0.0;
      for (var m = begin; m < min(begin + 256u, size.M); m++) {
        if (u32(indices[m]) == row) { part += dy[m * size.D + column]; }
      }
      sum += part;
    }
    dx[row * size.D + column] = sum;
  }
}
`;
