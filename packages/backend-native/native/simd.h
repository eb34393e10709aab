// Vectors of one instruction-set level, written with the compiler's vector extensions (g++ and clang, x86 and arm64).
// Every file that includes this is compiled once per level with -DISA=<level>; all names live in blip2::<level>, and no
// std:: template is used here, so that the linker cannot merge functions of different levels.
#pragma once
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels.h"
#include "thread_pool.h"

namespace blip2 {
namespace ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));

static inline vf load(const float* p) {
  vf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
static inline void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
static inline vf splat(float x) { return x - vf{}; }
// The first `count` lanes, 0 … W of them. A load sets the others to 0, a store leaves them unchanged.
#if defined(__AVX512F__)
static inline vf load_part(const float* p, int64_t count) { return _mm512_maskz_loadu_ps((1u << count) - 1, p); }
static inline void store_part(float* p, vf v, int64_t count) { _mm512_mask_storeu_ps(p, (1u << count) - 1, v); }
#elif defined(__AVX2__)
static inline __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf load_part(const float* p, int64_t count) { return _mm256_maskload_ps(p, first_lanes(count)); }
static inline void store_part(float* p, vf v, int64_t count) { _mm256_maskstore_ps(p, first_lanes(count), v); }
#else
static inline vf load_part(const float* p, int64_t count) {
  vf v{};
  __builtin_memcpy(&v, p, size_t(count) * 4);
  return v;
}
static inline void store_part(float* p, vf v, int64_t count) { __builtin_memcpy(p, &v, size_t(count) * 4); }
#endif

static inline vf vmax(vf a, vf b) { return a > b ? a : b; }
static inline vf vmin(vf a, vf b) { return a < b ? a : b; }
static inline float sum_of(vf v) {
  float s = 0;
  for (int i = 0; i < W; i++) s += v[i];
  return s;
}
static inline float max_of(vf v) {
  float m = v[0];
  for (int i = 1; i < W; i++) m = v[i] > m ? v[i] : m;
  return m;
}
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static inline vf vabs(vf x) { return (vf)((vi)x & 0x7fffffff); }

// e^x for x ≤ 88, to about 1e-7 relative; exactly 0 from -88 down, NaN stays NaN.
// x = n·ln2 + r with |r| ≤ ln2 / 2; e^r = 1 + r + r²·(polynomial with a relative error of 3e-9).
static inline vf vexp(vf x) {
  const vf low = splat(-88.03f);          // n = -127, whose factor below is 0
  const vf limited = x < low ? low : x;
  const vf shifter = splat(12582912.f);   // 1.5 · 2^23: adding it leaves the rounded integer in the low bits
  const vf shifted = limited * 1.44269504f + shifter;
  const vf n = shifted - shifter;
  const vf r = (limited - n * 0.693145752f) - n * 1.42860677e-6f;
  vf p = splat(0.0013814597623422742f);
  p = p * r + 0.008368716575205326f;
  p = p * r + 0.04166838899254799f;
  p = p * r + 0.1666652113199234f;
  p = p * r + 0.4999999403953552f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  return p * (vf)(((vu)shifted << 23) + (127u << 23));   // unsigned: NaN and infinities overflow here
}

// Calls f(begin, end) for fixed chunks of 0 … n - 1, in parallel when there is more than one.
template <class F>
static inline void parallel_chunks(int64_t n, int64_t chunk, const F& f) {
  struct Context {
    const F& f;
    int64_t n, chunk;
  } context{f, n, chunk};
  run_tasks(ceil_div(n, chunk),
            [](void* raw, int64_t task) {
              const Context& c = *static_cast<Context*>(raw);
              c.f(task * c.chunk, smaller(c.n, (task + 1) * c.chunk));
            },
            &context);
}

template <class F>
static inline void parallel_tasks(int64_t tasks, const F& f) {
  run_tasks(tasks, [](void* raw, int64_t task) { (*static_cast<const F*>(raw))(task); }, const_cast<F*>(&f));
}

// How many rows of N numbers are enough work for a task.
static inline int64_t rows_per_chunk(int64_t N) { return larger(1, 16384 / larger(1, N)); }

}  // namespace ISA
}  // namespace blip2
