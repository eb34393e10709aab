/**
 * OP 0: Σ x² of 4096 numbers of a tensor for each group, to `parts` from `at` on. OP 1: the sum of `count` such parts, in one group.
 */
export default /* wgsl */ `
struct Size { count: u32, at: u32, unused0: u32, unused1: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<uniform> size: Size;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let block = group.y * groups.x + group.x;
  let begin = select(block * 4096u, 0u, OP == 1u);
  let end = select(min(begin + 4096u, size.count), size.count, OP == 1u);
  var sum = 0.0;
  for (var first = begin + thread; first < end; first += 64u * LANES) {
    var part = 0.0;
    for (var i = first; i < min(first + 64u * LANES, end); i += LANES) {
      part += select(x[i] * x[i], x[i], OP == 1u);
    }
    sum += part;
  }
  let all = total(vec2f(sum, 0.0), thread);
  if (thread == 0u && begin < max(end, 1u)) { sums[size.at + block] = all.x; }
}
`;
