// Matmul with an int8 weight, and its encoding, without VNNI.
#include "gemm_int4.h"

namespace blip2 {
namespace ISA {
namespace {

#if defined(__AVX2__)
// vpmaddubsw would saturate at 16 bits. So bytes 0 and 2 of each word, and bytes 1 and 3, become numbers of 16 bits, whose products are
// summed in pairs to 32 bits.
struct Pairs {
#if defined(__AVX512F__)
  static constexpr int kRows = 10;
  static vi low(vi w) { return (vi)_mm512_and_si512((__m512i)w, _mm512_set1_epi16(255)); }
  static vi high(vi w) { return (vi)_mm512_srli_epi16((__m512i)w, 8); }
  static vi signed_low(vi w) { return (vi)_mm512_srai_epi16(_mm512_slli_epi16((__m512i)w, 8), 8); }
  static vi signed_high(vi w) { return (vi)_mm512_srai_epi16((__m512i)w, 8); }
  static vi pairs(vi a, vi b) { return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
#else
  static constexpr int kRows = 4;
  static vi low(vi w) { return (vi)_mm256_and_si256((__m256i)w, _mm256_set1_epi16(255)); }
  static vi high(vi w) { return (vi)_mm256_srli_epi16((__m256i)w, 8); }
  static vi signed_low(vi w) { return (vi)_mm256_srai_epi16(_mm256_slli_epi16((__m256i)w, 8), 8); }
  static vi signed_high(vi w) { return (vi)_mm256_srai_epi16((__m256i)w, 8); }
  static vi pairs(vi a, vi b) { return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
#endif
  struct Words {
    vi low, high;
  };
  static Words words(vi w) { return {low(w), high(w)}; }
  static void multiply_add(vi& s0, vi& s1, const Words& w0, const Words& w1, const int32_t* x) {
    const vi word = vi{} + *x, xl = signed_low(word), xh = signed_high(word);
    s0 += pairs(w0.low, xl) + pairs(w0.high, xh);
    s1 += pairs(w1.low, xl) + pairs(w1.high, xh);
  }
  static vi add_bytes(vi sum, vi w) {
    const vi ones = vi{} + 0x00010001;
    return sum + pairs(signed_low(w), ones) + pairs(signed_high(w), ones);
  }
};
using Engine = Pairs;
#else
// Byte by byte, in 32 bits.
struct Bytes {
  static constexpr int kRows = 4;
  struct Words {
    vi byte[4];
  };
  static Words words(vi w) { return {{w & 255, w >> 8 & 255, w >> 16 & 255, w >> 24 & 255}}; }
  static void multiply_add(vi& s0, vi& s1, const Words& w0, const Words& w1, const int32_t* x) {
    int8_t bytes[4];
    __builtin_memcpy(bytes, x, 4);
    for (int i = 0; i < 4; i++) {
      s0 += w0.byte[i] * int32_t(bytes[i]);
      s1 += w1.byte[i] * int32_t(bytes[i]);
    }
  }
  static vi add_bytes(vi sum, vi w) {
    const vu bits = (vu)w;
    return sum + ((vi)(bits << 24) >> 24) + ((vi)(bits << 16) >> 24) + ((vi)(bits << 8) >> 24) + (w >> 24);
  }
};
using Engine = Bytes;
#endif

}  // namespace

extern const Int8Matmul int8_matmul;
const Int8Matmul int8_matmul = {times_int8<Engine>, times_int4<Engine>};

// One panel of 32 rows of the weight.
template <class Codec>
static void quantise_weight_panel(const Codec& codec, int64_t rows, int64_t columns, const float* inverse_factors, uint8_t* to,
                                  float* scales) {
  float* row = scratch(kRow, columns);
  const int64_t words = blocks_of(columns) * (kBlockSide / 4);
  for (int64_t n = 0; n < kBlockSide; n++) {
    RowScale s{0, 0};
    if (n < rows) {
      const auto from = codec.row(n);
      for (int64_t k = 0; k < columns; k += W) store_part(row + k, from.load_part(k, smaller(W, columns - k)), smaller(W, columns - k));
      s = scale_of(row, inverse_factors, columns);
      scales[n] = s.scale;
    }
    for (int64_t w = 0; w < words; w += W) {
      const vi q = quantised_words(row, inverse_factors, 4 * w, columns, s.inverse) ^ int32_t(0x80808080);
      for (int64_t i = 0; i < smaller(W, words - w); i++) __builtin_memcpy(to + (w + i) * (4 * kBlockSide) + n * 4, &q[i], 4);
    }
  }
}

void quantise(const WeightView& w, const float* factors, uint8_t* blocks, float* scales) {
  float* inverse = scratch(kMask, w.columns);
  for (int64_t k = 0; k < w.columns; k++) inverse[k] = 1 / factors[k];
  with_codec(w, [&](const auto& codec) {
    parallel_tasks(blocks_of(w.rows), [&](int64_t p) {
      const int64_t row = p * kBlockSide;
      quantise_weight_panel(codec.from(row, 0), smaller(kBlockSide, w.rows - row), w.columns, inverse,
                            blocks + p * blocks_of(w.columns) * kBlockBytes, scales + row);
    });
  });
}

}  // namespace ISA
}  // namespace blip2
