/**
 * A product (product.ts) of packed a (pack.ts) by subgroup matrices, which are tensor cores where a GPU has them: SM × SK times SK × SN numbers.
 * GM × GN subgroups have RM × RN of them each. No other operation of subgroups is used: a driver of NVIDIA crashes then.
 */
import { loadB, loadPackedA } from './load-tiles';

const tiles = /* wgsl */ `
alias Left = subgroup_matrix_left<Number, SK, SM>;
alias Right = subgroup_matrix_right<Number, SN, SK>;
alias Sums = subgroup_matrix_result<f32, SN, SM>;

const TM = GM * RM * SM;
const TN = GN * RN * SN;
const THREADS = GM * GN * SUBGROUP;
const LEFT = TK + 8u;
const RIGHT = select(TN, TK, B_T) + 8u;
const PART = SM * SN;
var<workgroup> left: array<Number, TM * LEFT>;
var<workgroup> right: array<Number, select(TK, TN, B_T) * RIGHT>;
var<workgroup> parts: array<f32, GM * GN * PART>;

fn put_a(m: u32, k: u32, v: Number) { left[m * LEFT + k] = v; }
fn put_b(k: u32, n: u32, v: f32) { right[select(k * RIGHT + n, n * RIGHT + k, B_T)] = Number(v); }
${loadPackedA}${loadB}
fn right_at(n: u32, k: u32) -> Right {
  if (B_T) { return subgroupMatrixLoad<Right, col_major>(&right, n * RIGHT + k, RIGHT); }
  return subgroupMatrixLoad<Right, row_major>(&right, k * RIGHT + n, RIGHT);
}
`;

const body = /* wgsl */ `  let m0 = group.y * TM;
  let n0 = group.x * TN;
  let row = subgroup / GN * RM * SM;
  let column = subgroup % GN * RN * SN;
  var sums: array<array<Sums, RN>, RM>;
  for (var k0 = 0u; k0 < size.K; k0 += TK) {
    load_a(m0, k0, thread);
    load_b(n0, k0, thread);
    workgroupBarrier();
    for (var k = 0u; k < TK && (EQUAL || subgroup < GM * GN); k += SK) {
      var a_of: array<Left, RM>;
      for (var i = 0u; i < RM; i++) {
        a_of[i] = subgroupMatrixLoad<Left, row_major>(&left, (row + i * SM) * LEFT + k, LEFT);
      }
      for (var j = 0u; j < RN; j++) {
        let b_of = right_at(column + j * SN, k);
        for (var i = 0u; i < RM; i++) { sums[i][j] = subgroupMatrixMultiplyAccumulate(a_of[i], b_of, sums[i][j]); }
      }
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < RM; i++) {
    for (var j = 0u; j < RN; j++) {
      if (EQUAL || subgroup < GM * GN) { subgroupMatrixStore<row_major>(&parts, subgroup * PART, sums[i][j], SN); }
      workgroupBarrier();
      for (var e = lane; e < PART && (EQUAL || subgroup < GM * GN); e += lanes) {
        store(m0 + row + i * SM + e / SN, n0 + column + j * SN + e % SN, parts[subgroup * PART + e]);
      }
      workgroupBarrier();
    }
  }
}
`;

/** All subgroups have SUBGROUP threads (EQUAL). */
export const equal = /* wgsl */ `${tiles}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let subgroup = thread / SUBGROUP;
  let lane = thread % SUBGROUP;
  const lanes = SUBGROUP;
${body}`;

/** They have at most SUBGROUP threads; if there are more of them, the others only load tiles. */
export const varying = /* wgsl */ `${tiles}
@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) lanes: u32,
) {
${body}`;
