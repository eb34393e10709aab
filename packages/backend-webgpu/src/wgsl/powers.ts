/**
 * bfloat16 numbers in 16-bit floats. These have more digits and a smaller range, so each row is multiplied by a power of two that brings its
 * largest number to 2¹⁴ or more, below 2¹⁵. Then numbers down to 2⁻²⁹ of the largest are exact, and smaller ones lose digits.
 */
export default /* wgsl */ `
fn rounded(v: f32) -> f32 {
  let bits = bitcast<u32>(v);
  let nearest = (bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u;
  return bitcast<f32>(select(nearest, bits, (bits & 0x7fffffffu) > 0x7f800000u)); // NaN stays NaN
}

fn rounded4(v: vec4f) -> vec4f { return vec4f(rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w)); }

fn magnitude(v: f32) -> u32 { return bitcast<u32>(v) & 0x7fffffffu; }

fn magnitude4(v: vec4f) -> u32 {
  return max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
}

// The power for a row whose largest magnitude has these bits; NaN if one number is infinite or NaN, so that the results are.
fn power_of(top: u32) -> f32 {
  let exponent = top >> 23u;
  if (exponent == 255u) { return bitcast<f32>(top | 0x7fc00000u); }
  return bitcast<f32>(clamp(268u - exponent, 14u, 253u) << 23u);
}

fn inverse(power: f32) -> f32 {
  let bits = bitcast<u32>(power);
  return bitcast<f32>(select((254u << 23u) - bits, bits, bits > 0x7f800000u));
}

const LANES = 64u;
var<workgroup> tops: array<u32, LANES>;

fn largest(own: u32, thread: u32) -> u32 {
  tops[thread] = own;
  workgroupBarrier();
  var top = 0u;
  for (var i = 0u; i < LANES; i++) { top = max(top, tops[i]); }
  return top;
}
`;
