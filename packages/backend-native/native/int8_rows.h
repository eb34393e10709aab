// Rounding rows of numbers to int8, each row with one scale. All levels give the same bytes: every step below is exact or rounded once,
// and the largest magnitude does not depend on the order of comparison.
#pragma once
#include "gemm_panels.h"

namespace blip2 {
namespace ISA {
namespace {

// A number x of the row is about q · scale. A row with NaN or infinity has the scale NaN and q = 0, so that all its results are NaN.
struct RowScale {
  float scale, inverse;   // inverse = 0: every q is 0
};

inline RowScale row_scale(int32_t largest_bits, float top) {
  constexpr int32_t kInfinity = 0x7f800000, kTiny = 0x0d800000;   // 2^-100: below, top / largest could overflow
  float largest;
  __builtin_memcpy(&largest, &largest_bits, 4);
  if (largest_bits >= kInfinity) return {__builtin_nanf(""), 0};
  if (largest_bits < kTiny) return {0, 0};
  return {largest / top, top / largest};
}

inline int32_t largest_lane(vi v) {
  int32_t most = v[0];
  for (int i = 1; i < W; i++) most = v[i] > most ? v[i] : most;
  return most;
}
inline vi later(vi a, vi b) { return a > b ? a : b; }

// The scale of the `count` numbers x · by, of which the largest becomes `top`. Magnitudes are compared as integers, which also orders infinity and NaN.
inline RowScale scale_of(const float* x, const float* by, int64_t count, float top = 127) {
  const auto magnitude = [&](vf v, vf f) { return (vi)(v * f) & 0x7fffffff; };
  vi most[2] = {};
  int64_t k = 0;
  for (; k + 2 * W <= count; k += 2 * W)
    for (int i = 0; i < 2; i++) most[i] = later(most[i], magnitude(load(x + k + i * W), load(by + k + i * W)));
  for (; k < count; k += W) {
    const int64_t n = smaller(W, count - k);
    most[0] = later(most[0], magnitude(load_part(x + k, n), load_part(by + k, n)));
  }
  return row_scale(largest_lane(later(most[0], most[1])), top);
}

// Four vectors of numbers in -127 … 127, rounded to nearest with ties to even, as words of four bytes in their order.
inline vi bytes_of(vf a, vf b, vf c, vf d) {
#if defined(__AVX512F__)
  const __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
  const __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  return (vi)_mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
#elif defined(__AVX2__)
  const __m256i low = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
  const __m256i high = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
  return (vi)_mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
#else
  const vf from[4] = {a, b, c, d};
  int8_t bytes[4 * W];
  for (int i = 0; i < 4 * W; i++) bytes[i] = int8_t(__builtin_lrintf(from[i / W][i % W]));
  vi words;
  __builtin_memcpy(&words, bytes, sizeof words);
  return words;
#endif
}

// W words of q for the 4 W numbers x · by from column k on, of `count` in the row; zero beyond.
inline vi quantised_words(const float* x, const float* by, int64_t k, int64_t count, float inverse) {
  if (inverse == 0) return vi{};   // also for NaN, which has no integer
  vf v[4];
  if (k + 4 * W <= count) {
    for (int i = 0; i < 4; i++) v[i] = load(x + k + i * W) * load(by + k + i * W) * inverse;
  } else {
    for (int i = 0; i < 4; i++) {
      const int64_t at = smaller(count, k + i * W), n = smaller(W, count - at);
      v[i] = load_part(x + at, n) * load_part(by + at, n) * inverse;
    }
  }
  return bytes_of(v[0], v[1], v[2], v[3]);
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
