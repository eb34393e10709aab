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

fn add_piece(row: u32, thread: u32) {
  if (row >= size.M) { return; }
  let at = row * size.C;
  var top = -3e38;
  for (var i = thread; i < size.C; i += LANES) { top = max(top, logits[at + i]); }
  parts[thread].x = top;
  workgroupBarrier();
  for (var i = 0u; i < LANES; i++) { top = max(top, parts[i].x); }
  workgroupBarrier();
  var sum = vec2f();
  for (var begin = thread; begin < size.C; begin += 32u * LANES) {
    var part = vec2f();
    for (var i = begin; i < min(begin + 32u * LANES, size.C); i += LANES) {
      part += vec2f(exp_of(logits[at + i] - top), logits[at + i]);
    }
    sum += part;
  }
  let both = total(sum, thread);
  if (thread > 0u) { return; }
  var known = vec4f(-3e38, 0.0, 0.0, 0.0);
  if (size.first > 0u) { known = rows[row]; }
  let most = max(known.x, top);
  let label = labels[row] - i32(size.first);
  if (label >= 0 && label < i32(size.C)) { known.z = logits[at + u32(label)]; }
  let all = known.y * exp_of(known.x - most) + both.x * exp_of(top - most);
  rows[row] = vec4f(most, all, known.z, known.w + both.y);
}

@compute @workgroup_size(LANES)
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
  let i = at * LANES + thread;
  if (i >= size.M * size.C) { return; }
  let row = i / size.C;
  var g = 0.0;
  if (labels[row] >= 0) {
    let hit = u32(labels[row]) == size.first + i % size.C;
    let goal = select(0.0, 1.0 - size.smoothing, hit) + size.smoothing / f32(size.V);
    g = (exp_of(logits[i] - lse[row]) - goal) * factor[0];
  }
  dlogits[i] = g;
}
`;
