/** Sums of a group of 64 threads. Every thread adds all parts itself: two barriers, where a tree has twelve. */
export default /* wgsl */ `
const LANES = 64u;
var<workgroup> parts: array<vec2f, LANES>;

fn total(v: vec2f, thread: u32) -> vec2f {
  parts[thread] = v;
  workgroupBarrier();
  var sum = vec2f();
  for (var i = 0u; i < LANES; i++) { sum += parts[i]; }
  workgroupBarrier();
  return sum;
}
`;
