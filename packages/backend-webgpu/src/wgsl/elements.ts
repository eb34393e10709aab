/** Functions of each element. OP: 0 gelu, 1 its gradient, 2 gated gelu, 3 its gradients, 4 relu, 5 its gradient, 6 dropout. */
export default /* wgsl */ `
struct Size { count: u32, key0: u32, key1: u32, least: u32, keep: f32, unused0: u32, unused1: u32, unused2: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> gate: array<f32>;
@group(0) @binding(3) var<storage, read> flags: array<i32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> y2: array<f32>;
@group(0) @binding(6) var<storage, read_write> positive: array<i32>;
@group(0) @binding(7) var<uniform> size: Size;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * groups.x + group.x) * 256u + thread;
  if (i >= size.count) { return; }
  if (OP == 0u) { y[i] = gelu(a[i]); }
  if (OP == 1u) { y[i] = a[i] * gelu_slope(b[i]); }
  if (OP == 2u) { y[i] = gelu_new(gate[i]) * a[i]; }
  if (OP == 3u) {
    y[i] = a[i] * b[i] * gelu_new_slope(gate[i]);
    y2[i] = a[i] * gelu_new(gate[i]);
  }
  if (OP == 4u) {
    y[i] = max(a[i], 0.0);
    positive[i] = select(0, 1, a[i] > 0.0);
  }
  if (OP == 5u) { y[i] = select(0.0, a[i], flags[i] != 0); }
  if (OP == 6u) { y[i] = select(0.0, a[i] * size.keep, kept(vec2u(size.key0, size.key1), i, size.least)); }
}
`;
