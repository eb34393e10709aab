/** Functions of one number. erf is within an ulp of exact (minimax polynomials of N. Juffa). */
export default /* wgsl */ `
fn erf(x: f32) -> f32 {
  let t = min(abs(x), 4.0);
  let s = t * t;
  if (t > 0.927734375) {
    var r = fma(-1.72853470e-5, t, 3.83197126e-4);
    let u = fma(-3.88396438e-3, t, 2.42546219e-2);
    r = fma(r, s, u);
    r = fma(r, t, -1.06777877e-1);
    r = fma(r, t, -6.34846687e-1);
    r = fma(r, t, -1.28717512e-1);
    r = fma(r, t, -t);
    return sign(x) * (1.0 - exp_of(r));
  }
  var r = -5.96761703e-4;
  r = fma(r, s, 4.99119423e-3);
  r = fma(r, s, -2.67681349e-2);
  r = fma(r, s, 1.12819925e-1);
  r = fma(r, s, -3.76125336e-1);
  r = fma(r, s, 1.28379166e-1);
  return fma(r, x, x);
}

fn gelu(x: f32) -> f32 { return 0.5 * x * (1.0 + erf(x * 0.70710678)); }

fn gelu_slope(x: f32) -> f32 {
  return 0.5 * (1.0 + erf(x * 0.70710678)) + x * 0.39894228 * exp_of(-0.5 * x * x);
}

// tanh of the language may overflow
fn tanh_of(x: f32) -> f32 { return 1.0 - 2.0 / (exp_of(2.0 * clamp(x, -15.0, 15.0)) + 1.0); }

fn gate_of(g: f32) -> f32 { return tanh_of(0.7978845608 * (g + 0.044715 * g * g * g)); }

fn gelu_new(g: f32) -> f32 { return 0.5 * g * (1.0 + gate_of(g)); }

fn gelu_new_slope(g: f32) -> f32 {
  let t = gate_of(g);
  return 0.5 * (1.0 + t) + 0.5 * g * (1.0 - t * t) * 0.7978845608 * (1.0 + 3.0 * 0.044715 * g * g);
}
`;
