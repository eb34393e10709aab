// Words of two bfloat16 numbers. float32 is rounded to nearest, ties to even; subnormal numbers count as 0. Needs AVX512-BF16.
#pragma once
#include "stored_types.h"

namespace blip2 {
namespace ISA {
namespace {

struct BFloat16 {
  static constexpr int kPerWord = 2, kGrain = 1;
  static vf words(__m512 low, __m512 high) { return (vf)_mm512_cvtne2ps_pbh(high, low); }
  template <class T>
  static vf along(const T* p) { return words(load(p), load(p + W)); }
  template <class T>
  static vf along_part(const T* p, int64_t count) {
    return words(load_part(p, smaller(W, count)), count > W ? load_part(p + W, count - W) : vf{});
  }
  template <class T>
  static vf across(const T* first, const T* second, int64_t count) {
    const __m512i apart = (__m512i)words(load_part(first, count), second ? load_part(second, count) : vf{});
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (vf)_mm512_permutexvar_epi16(order, apart);
  }
  // Numbers that are stored so already.
  static vf along(const Bf16* p) { return (vf)_mm512_loadu_si512(p); }
  static vf along_part(const Bf16* p, int64_t count) {
    return (vf)_mm512_maskz_loadu_epi16(uint32_t((uint64_t(1) << smaller(2 * W, count)) - 1), p);
  }
  static vf across(const Bf16* first, const Bf16* second, int64_t count) {
    const __m512i low = _mm512_cvtepu16_epi32(load_halves(first, count));
    return second ? (vf)_mm512_or_si512(low, (__m512i)load_part(second, count)) : (vf)low;
  }
  template <class T>
  static void across_two(const T* first, const T* second, float* to) {
    store(to, across(first, second, W));
    store(to + W, across(first + W, second + W, W));
  }
  static void across_two(const Bf16* first, const Bf16* second, float* to) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
    store(to, (vf)_mm512_permutex2var_epi16(a, low, b));
    store(to + W, (vf)_mm512_permutex2var_epi16(a, high, b));
  }
  static vf broadcast(const float* word) {
    int32_t bits;
    __builtin_memcpy(&bits, word, sizeof bits);
    return (vf)_mm512_set1_epi32(bits);
  }
  static vf multiply_add(vf sum, vf a, vf b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
};

}  // namespace
}  // namespace ISA
}  // namespace blip2
