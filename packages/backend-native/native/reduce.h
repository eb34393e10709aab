// Sums whose order is fixed by the sizes alone.
#pragma once
#include "simd.h"

namespace blip2 {
namespace ISA {

static inline vf part(const float* p, int64_t j, int64_t n) { return n == W ? load(p + j) : load_part(p + j, n); }

// Lanes past n become zero.
static inline vf keep(vf v, int64_t n) {
  if (n == W) return v;
  for (int64_t l = n; l < W; l++) v[l] = 0;
  return v;
}

// Sum of term(j, n) over vectors of n ≤ W numbers; a term's lanes past n must be zero. In float inside a piece, in double between
// pieces: a long chain of float additions loses digits.
template <class F>
static inline double sum_over(int64_t N, const F& term) {
  constexpr int64_t piece = 1024;
  double sum = 0;
  for (int64_t j = 0; j < N;) {
    const int64_t end = smaller(N, j + piece);
    vf s0{}, s1{}, s2{}, s3{};
    for (; j + 4 * W <= end; j += 4 * W) {
      s0 += term(j, W);
      s1 += term(j + W, W);
      s2 += term(j + 2 * W, W);
      s3 += term(j + 3 * W, W);
    }
    for (; j + W <= end; j += W) s0 += term(j, W);
    if (j < end) s1 += term(j, end - j), j = end;
    sum += double(sum_of((s0 + s1) + (s2 + s3)));
  }
  return sum;
}

// out [N] = Σ of M rows; add(i, sums) adds row i. Groups of rows are summed in float, the groups in double.
template <class F>
static inline void sum_over_rows(int64_t M, int64_t N, float* out, const F& add) {
  const int64_t group = 64, groups = ceil_div(M, group);
  float* partials = scratch(kPartials, larger(1, groups) * N);
  parallel_tasks(groups, [&](int64_t task) {
    float* sums = partials + task * N;
    for (int64_t j = 0; j < N; j++) sums[j] = 0;
    for (int64_t i = task * group; i < smaller(M, (task + 1) * group); i++) add(i, sums);
  });
  parallel_chunks(N, larger(64, 65536 / larger(1, groups)), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
      double sum = 0;
      for (int64_t g = 0; g < groups; g++) sum += double(partials[g * N + j]);
      out[j] = float(sum);
    }
  });
}

}  // namespace ISA
}  // namespace blip2
