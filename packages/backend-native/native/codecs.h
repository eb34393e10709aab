// Codecs: how the numbers of a weight (weight_view.h) are read as float32. Packing and matmul of few rows are templates over them
// and address a weight by row and column only. A codec has
//   Codec from(row, k)      the part of the weight from that row and column on
//   Row row(r)              one row; cheap to make and to copy, like the codec itself
//   kBlock                  packing begins at columns that are multiples of this; a power of two
// and its Row has
//   vf load(k)              the W numbers from column k on
//   vf load_part(k, count)  the first `count` of these (0 … W) and zeros
//   Row from(k)             the part of the row from that column on
//   const void* at(k)       address of column k, for prefetching; k and the row may be beyond the end
// A format (gemm_panels.h, bfloat16.h) may have an overload for a Row whose bits it can use without conversion.
#pragma once
#include "simd.h"
#include "weight_view.h"

namespace blip2 {
namespace ISA {

// Numbers of a file. They may be unaligned, so these types have no alignment and are read only by the loads below.
struct Bf16 {
  unsigned char bytes[2];
};
struct F16 {
  unsigned char bytes[2];
};

#if defined(__AVX512F__)
static inline vf upcast_bf16(__m256i halves) { return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16); }
static inline vf upcast_f16(__m256i halves) { return (vf)_mm512_cvtph_ps(halves); }
static inline __m256i load_halves(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline __m256i load_halves(const void* p, int64_t count) { return _mm256_maskz_loadu_epi16((1u << count) - 1, p); }
#else
#if defined(__AVX2__)
typedef __m128i Halves;
static inline vf upcast_bf16(Halves halves) { return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16); }
static inline vf upcast_f16(Halves halves) { return (vf)_mm256_cvtph_ps(halves); }
#else
typedef uint16_t Halves __attribute__((vector_size(W * 2)));
static inline vf upcast_bf16(Halves halves) {
  vi bits;
  for (int i = 0; i < W; i++) bits[i] = int32_t(uint32_t(halves[i]) << 16);
  return (vf)bits;
}
// Moves exponent and fraction to their positions in float32 and multiplies by 2^112 for the difference of the biases; this is also
// correct for subnormal numbers. Infinities and NaN, with the largest exponent of float16, get the largest exponent of float32.
static inline vf upcast_f16(Halves halves) {
  vi sign, magnitude;
  for (int i = 0; i < W; i++) {
    sign[i] = int32_t(uint32_t(halves[i] & 0x8000) << 16);
    magnitude[i] = int32_t(uint32_t(halves[i] & 0x7fff) << 13);
  }
  const vi finite = (vi)((vf)magnitude * 0x1p112f);
  const vi special = magnitude | 0x7f800000;
  return (vf)((magnitude >= (0x7c00 << 13) ? special : finite) | sign);
}
#endif
static inline Halves load_halves(const void* p) {
  Halves halves;
  __builtin_memcpy(&halves, p, sizeof halves);
  return halves;
}
static inline Halves load_halves(const void* p, int64_t count) {
  Halves halves{};
  __builtin_memcpy(&halves, p, size_t(count) * 2);
  return halves;
}
#endif

// W numbers, or the first `count` of them (0 … W) and zeros.
static inline vf load(const Bf16* p) { return upcast_bf16(load_halves(p)); }
static inline vf load(const F16* p) { return upcast_f16(load_halves(p)); }
static inline vf load_part(const Bf16* p, int64_t count) { return upcast_bf16(load_halves(p, count)); }
static inline vf load_part(const F16* p, int64_t count) { return upcast_f16(load_halves(p, count)); }

template <class T>
struct PlainRow {
  const T* data;
  vf load(int64_t k) const { return ISA::load(data + k); }
  vf load_part(int64_t k, int64_t count) const { return ISA::load_part(data + k, count); }
  const void* at(int64_t k) const { return data + k; }
  PlainRow from(int64_t k) const { return {data + k}; }
};

// Plain numbers; rows are `stride` numbers apart.
template <class T>
struct Plain {
  static constexpr int64_t kBlock = 1;
  const T* data;
  int64_t stride;
  Plain from(int64_t row, int64_t k) const { return {data + row * stride + k, stride}; }
  PlainRow<T> row(int64_t r) const { return {data + r * stride}; }
};

// W signed bytes as numbers.
static inline vf load_bytes(const int8_t* p) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  vf v;
  for (int i = 0; i < W; i++) v[i] = float(p[i]);
  return v;
#endif
}
// The signed bytes of these words. Words that were just stored are not loaded as one vector: the processor would wait for them.
static inline vf numbers_of(const int32_t* words) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_setr_epi32(words[0], words[1], words[2], words[3]);
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_setr_epi32(words[0], words[1], 0, 0)));
#else
  return load_bytes(reinterpret_cast<const int8_t*>(words));
#endif
}

// Numbers of the int8 encoding (weight_view.h). Only for gathering, exact values and products in float32 or bfloat16: int8 products
// read the blocks (gemm_int8.h).
struct Int8Row {
  const uint8_t* row;     // column 0 of this row in its first block
  const float *scale, *factors;
  int64_t first;          // the column of the weight that is column 0 here
  vf load_part(int64_t k, int64_t count) const {
    const int64_t column = first + k;
    if (count == W && column % 4 == 0) {
      int32_t words[W / 4];
      for (int i = 0; i < W / 4; i++) {
        __builtin_memcpy(words + i, row + (column / 4 + i) * (4 * kBlockSide), 4);
        words[i] ^= int32_t(0x80808080);
      }
      return numbers_of(words) * *scale * ISA::load(factors + column);
    }
    vf v{};
    for (int64_t j = column; j < column + count; j++)
      v[j - column] = float(int(row[j / 4 * (4 * kBlockSide) + j % 4]) - 128) * *scale * factors[j];
    return v;
  }
  vf load(int64_t k) const { return load_part(k, W); }
  const void* at(int64_t k) const { return row + (first + k) / 4 * (4 * kBlockSide); }
  Int8Row from(int64_t k) const { return {row, scale, factors, first + k}; }
};

struct Int8 {
  static constexpr int64_t kBlock = 4;
  const uint8_t* blocks;
  const float *scales, *factors;
  int64_t columns, row0, column0;
  Int8 from(int64_t row, int64_t k) const { return {blocks, scales, factors, columns, row0 + row, column0 + k}; }
  Int8Row row(int64_t r) const {
    const int64_t n = row0 + r;
    return {blocks + n / kBlockSide * blocks_of(columns) * kBlockBytes + n % kBlockSide * 4, scales + n, factors, column0};
  }
};

inline Int8 int8_codec(const WeightView& w) {
  return {static_cast<const uint8_t*>(w.parts[0]), static_cast<const float*>(w.parts[1]), static_cast<const float*>(w.parts[2]),
          w.columns, w.first_row, 0};
}

// Numbers of bnb8, as in bitsandbytes' int8_vectorwise_dequant.
struct Bnb8Row {
  const int8_t* data;
  const float* scale;
  vf load_part(int64_t k, int64_t count) const {
    int8_t bytes[W] = {};
    __builtin_memcpy(bytes, data + k, size_t(count));
    return load_bytes(bytes) * *scale * 7.874015718698502e-3f;
  }
  vf load(int64_t k) const { return load_bytes(data + k) * *scale * 7.874015718698502e-3f; }
  const void* at(int64_t k) const { return data + k; }
  Bnb8Row from(int64_t k) const { return {data + k, scale}; }
};

struct Bnb8 {
  static constexpr int64_t kBlock = 1;
  const int8_t* data;
  const float* scales;
  int64_t columns;
  Bnb8 from(int64_t row, int64_t k) const { return {data + row * columns + k, scales + row, columns}; }
  Bnb8Row row(int64_t r) const { return {data + r * columns, scales + r}; }
};

inline Bnb8 bnb8_codec(const WeightView& w) {
  return Bnb8{static_cast<const int8_t*>(w.parts[0]), static_cast<const float*>(w.parts[1]), w.columns}.from(w.first_row, 0);
}

// The numbers of a table of 16 for W codes, two in a byte, of which the first is in the high half.
static inline vf looked_up(const float* table, const uint8_t* codes) {
#if defined(__AVX2__)
  uint64_t pairs = 0;
  __builtin_memcpy(&pairs, codes, W / 2);
  const __m128i both = _mm_cvtsi64_si128(int64_t(pairs));
#if defined(__AVX512F__)
  const __m512i wide = _mm512_cvtepu8_epi64(both);   // vpermps reads four bits of each half
  return (vf)_mm512_permutexvar_ps(_mm512_or_si512(_mm512_srli_epi64(wide, 4), _mm512_slli_epi64(wide, 32)), _mm512_loadu_ps(table));
#else
  const __m128i low = _mm_set1_epi8(15);
  const __m128i bytes = _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(both, 4), low), _mm_and_si128(both, low));
  const __m256i index = _mm256_cvtepu8_epi32(bytes);
  const __m256 small = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
  const __m256 large = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index);
  return (vf)_mm256_blendv_ps(small, large, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
#endif
#else
  vf v;
  for (int i = 0; i < W; i++) v[i] = table[i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15];
  return v;
#endif
}

// Numbers of bnb4. first: of all numbers of the weight, row after row, the one that is column 0 here.
struct Bnb4Row {
  const uint8_t* codes;
  const float *absmax, *table;
  int64_t first;
  vf load_part(int64_t k, int64_t count) const {
    const int64_t i = first + k;
    if (count == W && i % 2 == 0 && i % kAbsmaxNumbers + W <= kAbsmaxNumbers)
      return looked_up(table, codes + i / 2) * absmax[i / kAbsmaxNumbers];
    vf v{};
    for (int64_t j = i; j < i + count; j++)
      v[j - i] = table[j % 2 == 0 ? codes[j / 2] >> 4 : codes[j / 2] & 15] * absmax[j / kAbsmaxNumbers];
    return v;
  }
  vf load(int64_t k) const { return load_part(k, W); }
  const void* at(int64_t k) const { return codes + (first + k) / 2; }
  Bnb4Row from(int64_t k) const { return {codes, absmax, table, first + k}; }
};

struct Bnb4 {
  static constexpr int64_t kBlock = 1;
  const uint8_t* codes;
  const float *absmax, *table;
  int64_t columns, first;
  Bnb4 from(int64_t row, int64_t k) const { return {codes, absmax, table, columns, first + row * columns + k}; }
  Bnb4Row row(int64_t r) const { return {codes, absmax, table, first + r * columns}; }
};

inline Bnb4 bnb4_codec(const WeightView& w) {
  return {static_cast<const uint8_t*>(w.parts[0]), static_cast<const float*>(w.parts[1]), static_cast<const float*>(w.parts[2]), w.columns,
          w.first_row * w.columns};
}

// Numbers of the int4 encoding; its products in 8 bits read the codes (gemm_int4.h).
struct Int4Row {
  const uint8_t *codes, *steps;   // of column 0 of the weight
  const float *scale, *factors;
  int64_t first;                  // the column of the weight that is column 0 here
  int32_t word(int64_t column) const {
    int32_t pairs;
    __builtin_memcpy(&pairs, codes + column / 8 * (4 * kBlockSide), 4);
    return (column % 8 < 4 ? pairs : pairs >> 4) & 0x0f0f0f0f;
  }
  vf load_part(int64_t k, int64_t count) const {
    const int64_t column = first + k;
    if (count == W && column % 4 == 0 && column % kGroupSide + W <= kGroupSide) {
      int32_t words[W / 4];
      for (int i = 0; i < W / 4; i++) words[i] = word(column + 4 * i);
      return (numbers_of(words) - 8.f) * float(steps[column / kGroupSide * kBlockSide]) * *scale * ISA::load(factors + column);
    }
    vf v{};
    for (int64_t j = column; j < column + count; j++)
      v[j - column] = float((word(j) >> 8 * (j % 4) & 15) - 8) * float(steps[j / kGroupSide * kBlockSide]) * *scale * factors[j];
    return v;
  }
  vf load(int64_t k) const { return load_part(k, W); }
  const void* at(int64_t k) const { return codes + (first + k) / 8 * (4 * kBlockSide); }
  Int4Row from(int64_t k) const { return {codes, steps, scale, factors, first + k}; }
};

struct Int4 {
  static constexpr int64_t kBlock = 4;
  const uint8_t *codes, *steps;
  const float *scales, *factors;
  int64_t columns, row0, column0;
  Int4 from(int64_t row, int64_t k) const { return {codes, steps, scales, factors, columns, row0 + row, column0 + k}; }
  Int4Row row(int64_t r) const {
    const int64_t n = row0 + r, panel = n / kBlockSide * groups_of(columns), within = n % kBlockSide;
    return {codes + panel * kGroupBytes + within * 4, steps + panel * kBlockSide + within, scales + n, factors, column0};
  }
};

inline Int4 int4_codec(const WeightView& w) {
  return {static_cast<const uint8_t*>(w.parts[0]), static_cast<const uint8_t*>(w.parts[1]), static_cast<const float*>(w.parts[2]),
          static_cast<const float*>(w.parts[3]), w.columns, w.first_row, 0};
}

template <class T>
Plain<T> plain(const WeightView& w) {
  return Plain<T>{static_cast<const T*>(w.parts[0]), w.columns}.from(w.first_row, 0);
}

// Calls f with the codec of the weight's encoding.
template <class F>
static inline void with_codec(const WeightView& w, const F& f) {
  switch (w.encoding) {
    case Encoding::float32: return f(plain<float>(w));
    case Encoding::bfloat16: return f(plain<Bf16>(w));
    case Encoding::float16: return f(plain<F16>(w));
    case Encoding::int8: return f(int8_codec(w));
    case Encoding::int4: return f(int4_codec(w));
    case Encoding::bnb8: return f(bnb8_codec(w));
    case Encoding::bnb4: return f(bnb4_codec(w));
  }
}

}  // namespace ISA
}  // namespace blip2
