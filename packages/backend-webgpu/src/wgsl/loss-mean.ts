/** In one group. OP 0: lse [M] and the mean loss of the rows with a label, from the sums of loss.ts. OP 1: dloss / number of these rows. */
export default /* wgsl */ `
struct Size { M: u32, V: u32, smoothing: f32, unused: u32 }
@group(0) @binding(0) var<storage, read> rows: array<vec4f>;
@group(0) @binding(1) var<storage, read> labels: array<i32>;
@group(0) @binding(2) var<storage, read> dloss: array<f32>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<uniform> size: Size;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) thread: u32) {
  var sum = vec2f();
  for (var row = thread; row < size.M; row += LANES) {
    var loss = 0.0;
    if (OP == 0u) {
      let r = rows[row];
      let whole = r.x + log_of(r.y);
      lse[row] = whole;
      loss = (1.0 - size.smoothing) * (whole - r.z) + size.smoothing * (whole - r.w / f32(size.V));
    }
    if (labels[row] >= 0) { sum += vec2f(loss, 1.0); }
  }
  let all = total(sum, thread);
  if (thread > 0u) { return; }
  result[0] = select(dloss[0], all.x, OP == 0u) / all.y;
}
`;
