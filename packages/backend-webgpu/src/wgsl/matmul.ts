/**
 * A product (product.ts) in tiles of TM rows, TN columns and TK summed numbers: RM rows and 4·CN columns for each of TX·TY threads, CN 1 or 2. Tiles are in
 * float32, or in 16-bit floats that are multiplied and added as float32.
 */
import { loadB, loadPackedA } from './load-tiles';

const tiles = /* wgsl */ `
const TM = TY * RM;
const TN = 4u * TX * CN;
const THREADS = TX * TY;
const LEFT = TM + 1u;
var<workgroup> left: array<Number, TK * LEFT>;
var<workgroup> right: array<array<Number, TN + 1u>, TK>;

fn put_a(m: u32, k: u32, v: Number) { left[k * LEFT + m] = v; }
fn put_b(k: u32, n: u32, v: f32) { right[k][n] = Number(v); }
${loadB}
fn right4(k: u32, n: u32) -> vec4f {
  return vec4f(f32(right[k][n]), f32(right[k][n + 1u]), f32(right[k][n + 2u]), f32(right[k][n + 3u]));
}

@compute @workgroup_size(TX, TY)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let m0 = group.y * TM;
  let n0 = group.x * TN;
  let n = local.x * 4u;
  var near: array<vec4f, RM>;
  var far: array<vec4f, RM>; // if CN is 2
  for (var k0 = 0u; k0 < size.K; k0 += TK) {
    load_a(m0, k0, thread);
    load_b(n0, k0, thread);
    workgroupBarrier();
    for (var k = 0u; k < TK; k++) {
      let b0 = right4(k, n);
      let b1 = right4(k, n + TN - 4u * TX);
      for (var i = 0u; i < RM; i++) {
        let v = f32(left[k * LEFT + local.y * RM + i]);
        near[i] += v * b0;
        if (CN == 2u) { far[i] += v * b1; }
      }
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < RM; i++) {
    for (var j = 0u; j < 4u; j++) {
      store(m0 + local.y * RM + i, n0 + n + j, near[i][j]);
      if (CN == 2u) { store(m0 + local.y * RM + i, n0 + n + 4u * TX + j, far[i][j]); }
    }
  }
}
`;

/** a is [M, K], or [K, M] if A_T. */
export const float32 = /* wgsl */ `
@group(0) @binding(0) var<storage, read> a: array<f32>;
alias Number = f32;

fn a_at(m: u32, k: u32) -> f32 {
  if (m >= size.M || k >= size.K) { return 0.0; }
  if (A_T) { return a[k * size.M + m]; }
  let v = a[m * size.K + k];
  if (ROUND_A) { return rounded(v); }
  if (!DROP_A) { return v; }
  return select(0.0, v * size.keep, kept(vec2u(size.key0, size.key1), m * size.K + k, size.least));
}

fn load_a(tile: u32, k0: u32, thread: u32) {
  for (var i = 0u; i < TK * TM / THREADS; i++) {
    let e = thread + i * THREADS;
    let m = select(e / TK, e % TM, A_T);
    let k = select(e % TK, e / TM, A_T);
    put_a(m, k, a_at(tile + m, k0 + k));
  }
}
${tiles}`;

/** a is packed (pack.ts). */
export const float16 = /* wgsl */ `
alias Number = f16;
${loadPackedA}${tiles}`;
