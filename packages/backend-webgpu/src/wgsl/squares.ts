/**
 * OP 0: Σ x² of 16384 numbers of a tensor for each group, to \`parts\` from \`at\` on. OP 1: the sum of \`count\` such parts, in one group.
 */
export default /* wgsl */ `
struct Size { count: u32, at: u32, unused0: u32, unused1: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<uniform> size: Size;

var<workgroup> parts: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let block = group.y * groups.x + group.x;
  let begin = select(block * 16384u, 0u, OP == 1u);
  let end = select(min(begin + 16384u, size.count), size.count, OP == 1u);
  var sum = 0.0;
  for (var i = begin + thread; i < end; i += 256u) { sum += select(x[i] * x[i], x[i], OP == 1u); }
  parts[thread] = sum;
  workgroupBarrier();
  for (var step = 128u; step > 0u; step /= 2u) {
    if (thread < step) { parts[thread] += parts[thread + step]; }
    workgroupBarrier();
  }
  if (thread == 0u && begin < max(end, 1u)) { sums[size.at + block] = parts[0]; }
}
`;
