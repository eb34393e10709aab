/** AdamW of one tensor, in the order of operations of torch.optim.AdamW: new values of the parameter and of both moments. */
export default /* wgsl */ `
struct Size {
  count: u32, decay: f32, mix: f32, beta2: f32,
  rest: f32, eps: f32, rate: f32, root: f32,
}
@group(0) @binding(0) var<storage, read> scale: array<f32>;
@group(0) @binding(1) var<storage, read> param: array<f32>;
@group(0) @binding(2) var<storage, read> grad: array<f32>;
@group(0) @binding(3) var<storage, read> m: array<f32>;
@group(0) @binding(4) var<storage, read> v: array<f32>;
@group(0) @binding(5) var<storage, read_write> new_param: array<f32>;
@group(0) @binding(6) var<storage, read_write> new_m: array<f32>;
@group(0) @binding(7) var<storage, read_write> new_v: array<f32>;
@group(0) @binding(8) var<uniform> size: Size;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.y * groups.x + group.x) * 256u + thread;
  if (i >= size.count) { return; }
  let g = grad[i] * scale[0];
  let way = g - m[i];
  let first = select(g - way * (1.0 - size.mix), m[i] + way * size.mix, size.mix < 0.5);
  let second = v[i] * size.beta2 + g * size.rest * g;
  let denominator = sqrt(second) / size.root + size.eps;
  new_param[i] = param[i] * size.decay - first * size.rate / denominator;
  new_m[i] = first;
  new_v[i] = second;
}
`;
