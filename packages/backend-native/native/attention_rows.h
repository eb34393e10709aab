// Operations on the scores of one query, shared by every form of attention: a row of Tk numbers, padded to whole vectors.
#pragma once
#include "simd.h"

namespace blip2 {
namespace ISA {

static inline int64_t padded(int64_t n) { return ceil_div(n, W) * W; }

// The key mask of one batch item, padded with masked keys; null without a mask.
static inline const float* padded_mask(const float* key_mask, int64_t item, int64_t Tk) {
  if (!key_mask) return nullptr;
  float* mask = scratch(kMask, padded(Tk));
  for (int64_t j = 0; j < padded(Tk); j++) mask[j] = j < Tk ? key_mask[item * Tk + j] : 0.f;
  return mask;
}

// 0, 1, 2 … in the lanes.
static inline vi lane_numbers() {
  vi v{};
  for (int l = 0; l < W; l++) v[l] = l;
  return v;
}

// The bias of query i, one number for each key; null if there is none.
template <class Call>
static inline const float* bias_row(const Call& a, int64_t b, int64_t h, int64_t i) {
  return a.bias ? a.bias + ((a.shared_bias ? h : b * a.H + h) * a.Tq + i) * a.Tk : nullptr;
}

// Scales one padded row of scores, adds the bias and sets keys from `visible` on and masked ones to -∞; returns the largest.
static inline float mask_row(float* s, int64_t keys, int64_t visible, float scale, const float* bias, const float* mask) {
  const vf hidden = splat(-__builtin_inff());
  vf largest = hidden;
  vi index = lane_numbers();
  for (int64_t j = 0; j < keys; j += W) {
    vf x = load(s + j) * scale;
    if (bias) x += j + W <= keys ? load(bias + j) : load_part(bias + j, keys - j);
    if (j + W > visible) x = index < int32_t(visible) ? x : hidden;
    if (mask) x = load(mask + j) != 0.f ? x : hidden;
    store(s + j, x);
    largest = vmax(x, largest);
    index += W;
  }
  return max_of(largest);
}

// s = exp(s - shift) over a padded row; returns the sum. Masked keys become exactly 0.
static inline float exp_row(float* s, int64_t keys, float shift) {
  vf sum{};
  for (int64_t j = 0; j < keys; j += W) {
    const vf e = vexp(load(s + j) - shift);
    store(s + j, e);
    sum += e;
  }
  return sum_of(sum);
}

static inline void clear(float* s, int64_t n) {
  for (int64_t j = 0; j < n; j++) s[j] = 0;
}

static inline float dot(const float* x, const float* y, int64_t n) {
  vf s0{}, s1{};
  int64_t j = 0;
  for (; j + 2 * W <= n; j += 2 * W) {
    s0 += load(x + j) * load(y + j);
    s1 += load(x + j + W) * load(y + j + W);
  }
  for (; j + W <= n; j += W) s0 += load(x + j) * load(y + j);
  if (j < n) s1 += load_part(x + j, n - j) * load_part(y + j, n - j);
  return sum_of(s0 + s1);
}

}  // namespace ISA
}  // namespace blip2
