// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): random words from a counter and a key.
#pragma once
#include "simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace blip2 {
namespace ISA {

// One vector of W / 2 lanes, each a 32-bit word in a 64-bit place, so that products of words fit.
typedef uint64_t vw __attribute__((vector_size(W * 4)));
constexpr int kWordLanes = W / 2;

static inline vw multiply_words(vw a, uint64_t b) {
#if defined(__AVX512F__)
  return (vw)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(int64_t(b)));
#elif defined(__AVX2__)
  return (vw)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(int64_t(b)));
#elif defined(__SSE2__)
  return (vw)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(int64_t(b)));
#else
  return a * b;
#endif
}

// counter[w] holds word w of kWordLanes counters; it is replaced by the generator's output.
static inline void philox(vw (&counter)[4], uint32_t key0, uint32_t key1) {
  const vw low = vw{} + 0xffffffffu;
  for (int round = 0; round < 10; round++) {
    const vw p0 = multiply_words(counter[0], 0xD2511F53u), p1 = multiply_words(counter[2], 0xCD9E8D57u);
    counter[0] = (p1 >> 32) ^ counter[1] ^ uint64_t(key0);
    counter[1] = p1 & low;
    counter[2] = (p0 >> 32) ^ counter[3] ^ uint64_t(key1);
    counter[3] = p0 & low;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// out[i] = uniform number in [0, 1) of element start + i: word (element mod 4) of the counter floor(element / 4), of
// which the high 24 bits count. Little-endian, as every machine this compiles for.
static inline void philox_uniform(uint32_t key0, uint32_t key1, uint64_t start, int64_t n, float* out) {
  constexpr int lanes = kWordLanes;
  const uint64_t end = start + uint64_t(n);
  for (uint64_t block = start / 4; block * 4 < end; block += lanes) {
    vw words[4] = {};
    for (int l = 0; l < lanes; l++) {
      words[0][l] = uint32_t(block + uint64_t(l));
      words[1][l] = (block + uint64_t(l)) >> 32;
    }
    philox(words, key0, key1);
    // Word w of lane l belongs at 4 l + w.
    const vw first = words[0] | (words[1] << 32), second = words[2] | (words[3] << 32);
    uint64_t pairs[2 * lanes];
    for (int l = 0; l < lanes; l++) {
      pairs[2 * l] = first[l];
      pairs[2 * l + 1] = second[l];
    }
    uint32_t mixed[4 * lanes];
    __builtin_memcpy(mixed, pairs, sizeof mixed);
    float uniform[4 * lanes];
    for (int i = 0; i < 4 * lanes; i++) uniform[i] = float(int32_t(mixed[i] >> 8)) * 0x1p-24f;
    const uint64_t from = block * 4 < start ? start : block * 4;
    const uint64_t to = (block + lanes) * 4 < end ? (block + lanes) * 4 : end;
    __builtin_memcpy(out + (from - start), uniform + (from - block * 4), size_t(to - from) * 4);
  }
}

}  // namespace ISA
}  // namespace blip2
