// The matrix product whose operands are rounded to bfloat16 (to nearest, ties to even; subnormal numbers count as 0) while
// they are packed; sums, bias and result are float32. For AVX512-BF16: the only file of that level (see build.mjs).
#include "gemm_blocks.h"

namespace blip2 {
namespace ISA {
namespace {

struct BFloat16 {
  static constexpr int kPerWord = 2;
  static vf words(__m512 low, __m512 high) { return (vf)_mm512_cvtne2ps_pbh(high, low); }
  static vf along(const float* p) { return words(load(p), load(p + W)); }
  static vf along_part(const float* p, int64_t count) {
    return words(load_part(p, smaller(W, count)), count > W ? load_part(p + W, count - W) : vf{});
  }
  static vf across(const float* first, const float* second, int64_t count) {
    const __m512i apart = (__m512i)words(load_part(first, count), second ? load_part(second, count) : vf{});
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (vf)_mm512_permutexvar_epi16(order, apart);
  }
  static vf spread(const float* word) {
    int32_t bits;
    __builtin_memcpy(&bits, word, sizeof bits);
    return (vf)_mm512_set1_epi32(bits);
  }
  static vf multiply_add(vf sum, vf a, vf b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
};

// Few rows take the same way as many, so that a result does not depend on whether b was packed before.
void gemm(const Gemm& g) {
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) return fill_empty(g);
  gemm_blocked<BFloat16>(g);
}

}  // namespace

extern const Products bfloat16_products;
const Products bfloat16_products = {gemm, packed_floats<BFloat16>, pack_all<BFloat16>};

}  // namespace ISA
}  // namespace blip2
