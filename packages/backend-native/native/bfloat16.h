// Words of two bfloat16 numbers. float32 is rounded to nearest, ties to even; subnormal numbers count as 0. Needs AVX512-BF16.
#pragma once
#include "codecs.h"

namespace blip2 {
namespace ISA {
namespace {

struct BFloat16 {
  static constexpr int kPerWord = 2, kGrain = 1;
  static vf words(__m512 low, __m512 high) { return (vf)_mm512_cvtne2ps_pbh(high, low); }
  template <class Row>
  static vf row_words(const Row& row, int64_t k) { return words(row.load(k), row.load(k + W)); }
  template <class Row>
  static vf row_words_part(const Row& row, int64_t k, int64_t count) {
    return words(row.load_part(k, smaller(W, count)), count > W ? row.load_part(k + W, count - W) : vf{});
  }
  template <class Row>
  static vf column_words(const Row& first, const Row* second, int64_t k, int64_t count) {
    const __m512i apart = (__m512i)words(first.load_part(k, count), second ? second->load_part(k, count) : vf{});
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (vf)_mm512_permutexvar_epi16(order, apart);
  }
  template <class Row>
  static void column_words_twice(const Row& first, const Row& second, int64_t k, float* to) {
    store(to, column_words(first, &second, k, W));
    store(to + W, column_words(first, &second, k + W, W));
  }
  // Numbers that are bfloat16 already are used as they are.
  using Bf16Row = PlainRow<Bf16>;
  static vf row_words(const Bf16Row& row, int64_t k) { return (vf)_mm512_loadu_si512(row.data + k); }
  static vf row_words_part(const Bf16Row& row, int64_t k, int64_t count) {
    return (vf)_mm512_maskz_loadu_epi16(uint32_t((uint64_t(1) << smaller(2 * W, count)) - 1), row.data + k);
  }
  static vf column_words(const Bf16Row& first, const Bf16Row* second, int64_t k, int64_t count) {
    const __m512i low = _mm512_cvtepu16_epi32(load_halves(first.data + k, count));
    return second ? (vf)_mm512_or_si512(low, (__m512i)second->load_part(k, count)) : (vf)low;
  }
  static void column_words_twice(const Bf16Row& first, const Bf16Row& second, int64_t k, float* to) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    const __m512i a = _mm512_loadu_si512(first.data + k), b = _mm512_loadu_si512(second.data + k);
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
