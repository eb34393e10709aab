/**
 * eˣ and ln x within about an ulp on every adapter (minimax polynomial of N. Juffa). The language's own exp may be 3 + 2·|x| ulp off, always in
 * one direction, so that the shares of a softmax do not add up to 1.
 */
export default /* wgsl */ `
fn exp_of(x: f32) -> f32 {
  let t = clamp(x, -87.0, 88.0);
  let n = round(t * 1.44269504);
  var f = fma(n, -0.693145752, t);
  f = fma(n, -1.42860677e-6, f);
  var p = fma(1.37805939e-3, f, 8.37312452e-3);
  p = fma(p, f, 4.16695364e-2);
  p = fma(p, f, 1.66664720e-1);
  p = fma(p, f, 4.99999851e-1);
  p = fma(p, f, 1.0);
  p = fma(p, f, 1.0);
  let y = select(p * bitcast<f32>((i32(n) + 127) << 23u), 0.0, x < -87.0);
  return select(y, x, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u); // NaN stays NaN; by its bits, because compilers may assume that there is none
}

fn log_of(x: f32) -> f32 {
  let y = log(x);
  return y + (x * exp_of(-y) - 1.0);
}
`;
