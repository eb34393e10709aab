/**
 * How the numbers of a weight are read as float32 from the words w: `weight4` has the four numbers of a row from a column that is a
 * multiple of 4, with zeros beyond the last column. The parts of an encoding (`Encoding` of @blip2/nn; weight_view.h of backend-native)
 * follow each other: second, third and fourth are the words at which they begin.
 */
import type { Encoding } from '@blip2/nn';

/** For encodings that are read number by number. */
const BY_ONE = /* wgsl */ `
fn weight4(row: u32, column: u32) -> vec4f {
  var v = vec4f();
  for (var i = 0u; i < 4u; i++) {
    if (column + i < size.columns) { v[i] = weight(row, column + i); }
  }
  return v;
}
`;

const F32 = /* wgsl */ `
fn weight(row: u32, column: u32) -> f32 { return bitcast<f32>(w[row * size.columns + column]); }
${BY_ONE}`;

/** Two numbers of a row in a word, if the row begins with a word. */
const HALVES = /* wgsl */ `
fn weight(row: u32, column: u32) -> f32 {
  let at = row * size.columns + column;
  return widened(w[at / 2u] >> (16u * (at % 2u)));
}
fn weight4(row: u32, column: u32) -> vec4f {
  if (size.columns % 4u == 0u) {
    let at = (row * size.columns + column) / 2u;
    let a = w[at];
    let b = w[at + 1u];
    return vec4f(widened(a), widened(a >> 16u), widened(b), widened(b >> 16u));
  }
  var v = vec4f();
  for (var i = 0u; i < 4u; i++) {
    if (column + i < size.columns) { v[i] = weight(row, column + i); }
  }
  return v;
}
`;

const BF16 = /* wgsl */ `
fn widened(bits: u32) -> f32 { return bitcast<f32>(bits << 16u); }
${HALVES}`;

const F16 = /* wgsl */ `
fn widened(bits: u32) -> f32 { return unpack2x16float(bits).x; }
${HALVES}`;

const PARTS = /* wgsl */ `
fn byte(at: u32) -> u32 { return (w[at / 4u] >> (8u * (at % 4u))) & 0xffu; }
fn part(at: u32) -> f32 { return bitcast<f32>(w[at]); }
fn factors(column: u32) -> vec4f {
  var v = vec4f();
  for (var i = 0u; i < 4u; i++) {
    if (column + i < size.columns) { v[i] = bitcast<f32>(w[size.factors + column + i]); }
  }
  return v;
}
fn bytes_of(word: u32) -> vec4f {
  return vec4f(f32(word & 0xffu), f32((word >> 8u) & 0xffu), f32((word >> 16u) & 0xffu), f32(word >> 24u));
}
`;

/** Blocks of 32 rows and 32 columns: [8 groups of columns][32 rows][4 columns], bytes q + 128. */
const INT8 = /* wgsl */ `
${PARTS}
fn weight4(row: u32, column: u32) -> vec4f {
  let block = row / 32u * ((size.columns + 31u) / 32u) + column / 32u;
  let q = bytes_of(w[block * 256u + column % 32u / 4u * 32u + row % 32u]) - 128.0;
  return q * part(size.second + row) * factors(column);
}
`;

/** Panels of 32 rows and 64 columns: [8 groups of columns][32 rows][4 bytes], columns 0 … 3 in the low halves, 4 … 7 in the high ones. */
const INT4 = /* wgsl */ `
${PARTS}
fn weight4(row: u32, column: u32) -> vec4f {
  let panel = row / 32u * ((size.columns + 63u) / 64u) + column / 64u;
  let word = w[panel * 256u + column % 64u / 8u * 32u + row % 32u];
  let code = bytes_of((word >> (column % 8u)) & 0x0f0f0f0fu) - 8.0;
  let step = f32(byte(size.second * 4u + panel * 32u + row % 32u));
  return code * step * part(size.third + row) * factors(column);
}
`;

const BNB8 = /* wgsl */ `
${PARTS}
fn weight(row: u32, column: u32) -> f32 {
  let bits = byte(row * size.columns + column);
  return f32(i32(bits << 24u) >> 24u) * part(size.second + row) * 7.874015718698502e-3;
}
${BY_ONE}`;

const BNB4 = /* wgsl */ `
${PARTS}
fn weight(row: u32, column: u32) -> f32 {
  let at = row * size.columns + column;
  let pair = byte(at / 2u);
  let code = select(pair >> 4u, pair & 15u, at % 2u == 1u);
  return part(size.third + code) * part(size.second + at / 64u);
}
${BY_ONE}`;

export const codecs = { F32, F16, BF16, INT8, INT4, BNB8, BNB4 } satisfies {
  [K in Encoding['kind']]: string;
};
