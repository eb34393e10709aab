// GELU, its tanh approximation and ReLU of one vector.
#pragma once
#include "simd.h"

namespace blip2 {
namespace ISA {
namespace {

struct Normal {
  vf cumulative, bell;   // Φ(x) and e^(-x²/2)
};

// Φ(-a) = e^(-a²/2) · h(a) for a ≥ 0. h is a polynomial in t = 1 / (1 + 0.3 a) - 0.6, fitted for a in 0 … 14 with a
// relative error of 3.4e-8, so that the left tail is accurate too; in float32 the whole is good to about 3e-7.
inline Normal normal(vf x) {
  const vf a = vmin(vabs(x), splat(14.f));
  const vf t = 1.f / (1.f + 0.3f * a) - 0.6f;
  vf h = splat(-0.004509254824370146f);
  h = h * t + 0.03746496140956879f;
  h = h * t + 0.01660049520432949f;
  h = h * t - 0.09469983726739883f;
  h = h * t - 0.06817649304866791f;
  h = h * t + 0.21702507138252258f;
  h = h * t + 0.5489470958709717f;
  h = h * t + 0.6533841490745544f;
  h = h * t + 0.501654863357544f;
  h = h * t + 0.1551436185836792f;
  const vf bell = vexp(-0.5f * a * a);
  const vf tail = h * bell;
  return {x < 0.f ? tail : 1.f - tail, bell};
}

inline vf gelu_of(vf x) {
  const vf y = x * normal(x).cumulative;
  return x < -14.f ? vf{} : y;   // also keeps -∞ · 0 from being NaN
}

struct TanhGelu {
  vf value, slope;
};

// gelu_new(x) = 0.5·x·(1 + tanh u) = x·σ(2u) with u = √(2/π)·(x + 0.044715·x³), and its slope σ + x·σ·(1 - σ)·2u′.
inline TanhGelu tanh_gelu(vf x) {
  const vf v = vmax(vmin(x, splat(10.f)), splat(-10.f));   // farther out, σ is 0 or 1
  const vf square = v * v;
  const vf e = vexp(v * (-1.595769122f - 0.07135481627f * square));   // e^(-2u)
  const vf sigma = 1.f / (1.f + e);
  const vf slope = sigma + v * sigma * (e * sigma) * (1.595769122f + 0.2140644488f * square);
  return {x < -10.f ? vf{} : x * sigma, x == x ? slope : x};   // NaN stays NaN, and -∞ · 0 does not become it
}

inline vf relu_of(vf x) { return x < 0.f ? vf{} : x; }   // NaN stays NaN

}  // namespace
}  // namespace ISA
}  // namespace blip2
