// The element types that a checkpoint may have, widened exactly to float32 when they are loaded. Files do not promise
// alignment, so these types have none and are only read through the loads below.
#pragma once
#include "simd.h"
#include "stored_matrix.h"

namespace blip2 {
namespace ISA {

struct Bf16 {
  unsigned char bytes[2];
};
struct F16 {
  unsigned char bytes[2];
};

#if defined(__AVX512F__)
static inline vf widen_bf16(__m256i halves) { return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16); }
static inline vf widen_f16(__m256i halves) { return (vf)_mm512_cvtph_ps(halves); }
static inline __m256i load_halves(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline __m256i load_halves(const void* p, int64_t count) { return _mm256_maskz_loadu_epi16((1u << count) - 1, p); }
#else
#if defined(__AVX2__)
typedef __m128i Halves;
static inline vf widen_bf16(Halves halves) { return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16); }
static inline vf widen_f16(Halves halves) { return (vf)_mm256_cvtph_ps(halves); }
#else
typedef uint16_t Halves __attribute__((vector_size(W * 2)));
static inline vf widen_bf16(Halves halves) {
  vi bits;
  for (int i = 0; i < W; i++) bits[i] = int32_t(uint32_t(halves[i]) << 16);
  return (vf)bits;
}
// Exponent and fraction in float32's places, times 2^112 for the difference of the biases: subnormal numbers come out
// right as well. Infinities and NaN, which have float16's largest exponent, get float32's.
static inline vf widen_f16(Halves halves) {
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

// W numbers, or the first `count` of them (0 … W) with zeros behind.
static inline vf load(const Bf16* p) { return widen_bf16(load_halves(p)); }
static inline vf load(const F16* p) { return widen_f16(load_halves(p)); }
static inline vf load_part(const Bf16* p, int64_t count) { return widen_bf16(load_halves(p, count)); }
static inline vf load_part(const F16* p, int64_t count) { return widen_f16(load_halves(p, count)); }

}  // namespace ISA
}  // namespace blip2
