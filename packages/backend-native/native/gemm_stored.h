// Matmul with a stored weight (weight_view.h), for any codec: only the blocks in use are copied, by packing them.
#pragma once
#include "gemm_blocks.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kFewRows = 48;       // of x, as in generation: packing w would cost more than it saves
// Rows of w that are multiplied at once with C rows of x, so that the sums stay in registers.
constexpr int rows_at_once(int C) { return C == 4 && W == 16 ? 6 : W / C; }

// Prefetching of the R rows that follow: R · `step` / 65536 numbers of them for every vector of words, from column from / 65536 on.
// Fixed point, because the share of a step may be less than a number.
struct Prefetch {
  int64_t from, step;
};

// totals[r * C + c] = row r of w · row c of x, for R rows of w; rows beyond `last` are computed as `last`. x consists of words of F,
// padded with zeros to whole vectors.
template <class F, int C, class Codec>
void dot_rows(const Codec& w, int64_t K, int64_t last, const float* x, int64_t x_stride, Prefetch ahead, float* totals) {
  constexpr int R = rows_at_once(C), kSums = (R * C + W - 1) / W * W;
  constexpr int64_t kStep = W * F::kPerWord;
  using Row = decltype(w.row(0));
  vf sums[kSums];
  Row row[R];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; i++) sums[i] = vf{};
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) row[r] = w.row(smaller(r, last));
  const auto step = [&](auto words_of) __attribute__((always_inline)) {
    if (ahead.step > 0) {
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) __builtin_prefetch(w.row(R + r).at(ahead.from >> 16), 0, 2);
      ahead.from += ahead.step;
    }
    vf xs[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) xs[c] = load(x + c * x_stride);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vf ws = words_of(row[r]);
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) sums[r * C + c] = F::multiply_add(sums[r * C + c], ws, xs[c]);
    }
    x += W;
  };
  int64_t k = 0;
  for (; k + kStep <= K; k += kStep)
    step([](Row& r) __attribute__((always_inline)) {
      const Row here = r;
      r = r.from(kStep);
      return F::row_words(here, 0);
    });
  if (k < K) step([&](const Row& r) __attribute__((always_inline)) { return F::row_words_part(r, 0, K - k); });
#pragma GCC unroll 2
  for (int g = 0; g < kSums; g += W) {
    vf(&group)[W] = reinterpret_cast<vf(&)[W]>(sums[g]);
    transpose(group);
    vf total = group[0];
#pragma GCC unroll 16
    for (int i = 1; i < W; i++) total += group[i];
    store(totals + g, total);
  }
}

// x [M, K] · wᵀ for few rows of x: w is read once, row by row, in place.
template <class F, int C, class Codec>
void multiply_few_rows(const Gemm& g, const Codec& w) {
  constexpr int64_t R = rows_at_once(C), kStep = W * F::kPerWord;
  const int64_t stride = ceil_div(g.K, kStep) * W, passes = ceil_div(g.M, C), padded = passes * C;
  float* x = scratch(kPackedPanels, padded * stride);
  copy_a<F>(g.a, 0, g.M, 0, g.K, x, stride);
  // Where the same rows of w are multiplied more than once, each pass prefetches a share of the next ones. A single pass is as
  // fast as memory, and prefetching would only interfere with the processor's own.
  const int64_t step = passes > 1 ? (kStep << 16) / passes : 0;
  for (int64_t i = g.M * stride; i < padded * stride; i += W) store(x + i, vf{});
  parallel_chunks(g.N, ceil_div(larger(R, 65536 / g.K), R) * R, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += R)
      for (int64_t i = 0; i < g.M; i += C) {
        float sums[2 * W];
        dot_rows<F, C>(w.from(j, 0), g.K, end - 1 - j, x + i * stride, stride, {i / C * step * (stride / W), step}, sums);
        for (int64_t r = 0; r < smaller(R, end - j); r++)
          for (int64_t c = 0; c < smaller(C, g.M - i); c++)
            g.c[(i + c) * g.ldc + j + r] = sums[r * C + c] + (g.epilogue.bias ? g.epilogue.bias[j + r] : 0.f);
      }
    finish(g, 0, g.M, begin, end - begin);
  });
}

// b [K, N] is w, or wᵀ if transposed.
template <class Engine, class Codec>
void multiply_stored(const Gemm& g, const Codec& w, bool transposed) {
  using F = typename Engine::Format;
  if (transposed && g.M <= kFewRows) {
    if (g.M == 1) return multiply_few_rows<F, 1>(g, w);
    if (g.M == 2) return multiply_few_rows<F, 2>(g, w);
    return multiply_few_rows<F, 4>(g, w);
  }
  const RightOperand<Codec> b{w, transposed};
  gemm_blocked<Engine>(g, packable<F>(b));
}

// y [M, rows] = x [M, columns] · wᵀ when transposed, else y [M, columns] = x [M, rows] · w, and the epilogue.
template <class Engine>
void gemm_stored(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y) {
  const int64_t N = transposed ? w.rows : w.columns, K = transposed ? w.columns : w.rows;
  const Gemm g{M, N, K, {x, K, 1}, {nullptr, 0, 0}, epilogue, y, N, false};
  if (M == 0 || N == 0) return;
  if (K == 0) return fill_empty(g);
  with_codec(w, [&](const auto& codec) { multiply_stored<Engine>(g, codec, transposed); });
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
