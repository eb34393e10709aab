// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): random words from a counter and a key.
#pragma once
#include "simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace blip2 {
namespace ISA {

// W / 2 lanes of 64 bits, each holding a 32-bit word, so that products of words fit.
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
  return (a & 0xffffffffu) * b;
#endif
}

// counter[w] holds word w of kWordLanes counters and is replaced by the generator's output. Only the lower half of each 64-bit lane is
// valid; the upper half is not cleared, since multiplications ignore it.
static inline void philox(vw (&counter)[4], uint32_t key0, uint32_t key1) {
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    const vw p0 = multiply_words(counter[0], 0xD2511F53u), p1 = multiply_words(counter[2], 0xCD9E8D57u);
    counter[0] = (p1 >> 32) ^ counter[1] ^ uint64_t(key0);
    counter[1] = p1;
    counter[2] = (p0 >> 32) ^ counter[3] ^ uint64_t(key1);
    counter[3] = p0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// The 2 W uniform numbers of the kWordLanes counters from `block` on, in their order.
static inline void philox_numbers(uint32_t key0, uint32_t key1, uint64_t block, vf (&numbers)[2]) {
  vw lanes, even, odd;   // which 64-bit lanes of (a, b) the two halves take; lanes of b count from kWordLanes
  for (int l = 0; l < kWordLanes; l++) {
    lanes[l] = uint64_t(l);
    even[l] = uint64_t(l / 2 + l % 2 * kWordLanes);
    odd[l] = even[l] + kWordLanes / 2;
  }
  const vw counters = lanes + block;
  vw words[4] = {counters & 0xffffffffu, counters >> 32, vw{}, vw{}};
  philox(words, key0, key1);
  // Word w of lane l belongs at 4 l + w.
  const vw low_half = vw{} + 0xffffffffu;
  const vw first = (words[0] & low_half) | (words[1] << 32), second = (words[2] & low_half) | (words[3] << 32);
#if defined(__clang__)
  vw low, high;
  for (int l = 0; l < kWordLanes; l++) {
    low[l] = l % 2 ? second[l / 2] : first[l / 2];
    high[l] = l % 2 ? second[(l + kWordLanes) / 2] : first[(l + kWordLanes) / 2];
  }
#else
  const vw low = __builtin_shuffle(first, second, even), high = __builtin_shuffle(first, second, odd);
#endif
  numbers[0] = __builtin_convertvector((vi)((vu)low >> 8), vf) * 0x1p-24f;
  numbers[1] = __builtin_convertvector((vi)((vu)high >> 8), vf) * 0x1p-24f;
}

// out[i] = uniform number in [0, 1) of element start + i: word (element mod 4) of the counter floor(element / 4), of
// which the high 24 bits count. Assumes a little-endian machine.
static inline void philox_uniform(uint32_t key0, uint32_t key1, uint64_t start, int64_t n, float* out) {
  const uint64_t end = start + uint64_t(n);
  for (uint64_t block = start / 4; block * 4 < end; block += kWordLanes) {
    vf numbers[2];
    philox_numbers(key0, key1, block, numbers);
    const uint64_t whole = block * 4, beyond = whole + 2 * W;
    if (whole >= start && beyond <= end) {
      store(out + (whole - start), numbers[0]);
      store(out + (whole - start) + W, numbers[1]);
      continue;
    }
    float uniform[2 * W];
    store(uniform, numbers[0]);
    store(uniform + W, numbers[1]);
    const uint64_t from = whole < start ? start : whole, to = beyond < end ? beyond : end;
    __builtin_memcpy(out + (from - start), uniform + (from - whole), size_t(to - from) * 4);
  }
}

}  // namespace ISA
}  // namespace blip2
