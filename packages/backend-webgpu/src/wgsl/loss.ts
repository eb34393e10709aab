/**
 * Cross-entropy of logits that arrive in pieces of C columns from column `first` on, without holding the others. Of each row:
 * (largest logit, Σ exp(logit − largest), logit of the label, Σ logits). OP 0 adds a piece to them, a group for each row; OP 1 is
 * the gradient of a piece, an element for each thread.
 */
export default /* wgsl */ `
struct Size { M: u32, C: u32, V: u32, first: u32, smoothing: f32, unused0: u32, unused1: u32, unused2: u32 }
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<i32>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read> factor: array<f32>;
@group(0) @binding(4) var<storage, read_write> rows: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> dlogits: array<f32>;
@group(0) @binding(6) var<uniform> size: Size;

var<workgroup> parts: array<vec2f, 256>;

fn add_piece(row: u32, thread: u32) {
  if (row >= size.M) { return; }
  let at = row * size.C;
  var top = -3e38;
  for (var i = thread; i < size.C; i += 256u) { top = max(top, logits[at + i]); }
  parts[thread].x = top;
  workgroupBarrier();
  for (var step = 128u; step > 0u; step /= 2u) {
    if (thread < step) { parts[thread].x = max(parts[thread].x, parts[thread + step].x); }
    workgroupBarrier();
  }
  top = parts[0].x;
  workgroupBarrier();
  var sum = vec2f();
  for (var i = thread; i < size.C; i += 256u) { sum += vec2f(exp(logits[at + i] - top), logits[at + i]); }
  parts[thread] = sum;
  workgroupBarrier();
  for (var step = 128u; step > 0u; step /= 2u) {
    if (thread < step) { parts[thread] += parts[thread + step]; }
    workgroupBarrier();
  }
  if (thread > 0u) { return; }
  var known = vec4f(-3e38, 0.0, 0.0, 0.0);
  if (size.first > 0u) { known = rows[row]; }
  let most = max(known.x, top);
  let label = labels[row] - i32(size.first);
  if (label >= 0 && label < i32(size.C)) { known.z = logits[at + u32(label)]; }
  let all = known.y * exp(known.x - most) + parts[0].x * exp(top - most);
  rows[row] = vec4f(most, all, known.z, known.w + parts[0].y);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let at = group.y * groups.x + group.x;
  if (OP == 0u) {
    add_piece(at, thread);
    return;
  }
  let i = at * 256u + thread;
  if (i >= size.M * size.C) { return; }
  let row = i / size.C;
  var g = 0.0;
  if (labels[row] >= 0) {
    let hit = u32(labels[row]) == size.first + i % size.C;
    let goal = select(0.0, 1.0 - size.smoothing, hit) + size.smoothing / f32(size.V);
    g = (exp(logits[i] - lse[row]) - goal) * factor[0];
  }
  dlogits[i] = g;
}
`;
