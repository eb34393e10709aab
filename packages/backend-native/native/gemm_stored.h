// The product with a matrix that stays as its file stores it (stored_matrix.h): nothing of it is copied but the block in
// work, which is transposed into panels on the way into the cache, from whichever element type the file has.
#pragma once
#include "gemm_blocks.h"

namespace blip2 {
namespace ISA {
namespace {

// Element (i, j) lies at data[i * row_stride + j * column_stride], as in Strided.
template <class T>
struct StoredView {
  const T* data;
  int64_t row_stride, column_stride;
};

constexpr int64_t kFewRows = 48;       // of x, as in generation: packing w would cost more than it saves
// Rows of w that are multiplied at once with C rows of x: as many sums as stay in registers.
constexpr int rows_at_once(int C) { return C == 4 && W == 16 ? 6 : W / C; }

// totals[r * C + c] = row r of w · row c of x, for R rows of w; those past `last` count as the last one. x is words, as F makes
// them, with zeros up to whole vectors. From `soon` on lies the share of the next R rows that the cache is asked to read
// meanwhile, `pace` bytes of each for every vector of words.
template <class F, int C, class T>
void dot_rows(const T* w, int64_t K, int64_t last, const float* x, int64_t x_stride, const char* soon, int64_t pace,
              float* totals) {
  constexpr int R = rows_at_once(C), kSums = (R * C + W - 1) / W * W;
  constexpr int64_t kStep = W * F::kPerWord;
  vf sums[kSums];
  const T* row[R];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; i++) sums[i] = vf{};
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) row[r] = w + smaller(r, last) * K;
  const auto step = [&](auto load_words) __attribute__((always_inline)) {
    if (pace > 0) {
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) __builtin_prefetch(soon + r * K * int64_t(sizeof(T)), 0, 2);
      soon += pace;
    }
    vf xs[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) xs[c] = load(x + c * x_stride);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vf ws = load_words(row[r]);
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) sums[r * C + c] = F::multiply_add(sums[r * C + c], ws, xs[c]);
    }
    x += W;
  };
  int64_t k = 0;
  for (; k + kStep <= K; k += kStep)
    step([&](const T*& at) __attribute__((always_inline)) {
      const T* from = at;
      at += kStep;
      return F::along(from);
    });
  if (k < K) step([&](const T* at) __attribute__((always_inline)) { return F::along_part(at, K - k); });
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

// x [M, K] · wᵀ for few rows of x: w is read once, row by row, as it lies.
template <class F, int C, class T>
void multiply_few_rows(const Gemm& g, const T* w) {
  constexpr int64_t R = rows_at_once(C), kStep = W * F::kPerWord;
  const int64_t stride = ceil_div(g.K, kStep) * W, passes = ceil_div(g.M, C), padded = passes * C;
  float* x = scratch(kPackedPanels, padded * stride);
  copy_a<F>(g.a, 0, g.M, 0, g.K, x, stride);
  // Where the same rows of w are multiplied more than once, the next ones are asked for meanwhile, a share of them by each pass.
  // A single pass is as fast as memory, and asking would only get in the processor's own way of reading ahead.
  const int64_t pace = passes > 1 ? kStep * int64_t(sizeof(T)) / passes : 0;
  for (int64_t i = g.M * stride; i < padded * stride; i += W) store(x + i, vf{});
  parallel_chunks(g.N, ceil_div(larger(R, 65536 / g.K), R) * R, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += R)
      for (int64_t i = 0; i < g.M; i += C) {
        const char* soon = reinterpret_cast<const char*>(w + (j + R) * g.K) + i / C * pace * (stride / W);
        float sums[2 * W];
        dot_rows<F, C>(w + j * g.K, g.K, end - 1 - j, x + i * stride, stride, soon, pace, sums);
        for (int64_t r = 0; r < smaller(R, end - j); r++)
          for (int64_t c = 0; c < smaller(C, g.M - i); c++)
            g.c[(i + c) * g.ldc + j + r] = sums[r * C + c] + (g.epilogue.bias ? g.epilogue.bias[j + r] : 0.f);
      }
    finish(g, 0, g.M, begin, end - begin);
  });
}

// b [K, N] is w transposed, or w itself.
template <class Engine, class T>
void multiply_stored(const Gemm& g, const StoredMatrix& w, bool transposed) {
  using F = typename Engine::Format;
  const T* data = static_cast<const T*>(w.data);
  if (transposed && g.M <= kFewRows) {
    if (g.M == 1) return multiply_few_rows<F, 1>(g, data);
    if (g.M == 2) return multiply_few_rows<F, 2>(g, data);
    return multiply_few_rows<F, 4>(g, data);
  }
  const StoredView<T> b{data, transposed ? 1 : w.columns, transposed ? w.columns : 1};
  gemm_blocked<Engine>(g, panels_of<F>(b));
}

// y [M, rows] = x [M, columns] · wᵀ when transposed, else y [M, columns] = x [M, rows] · w; brought to its end.
template <class Engine>
void gemm_stored(const float* x, int64_t M, const StoredMatrix& w, bool transposed, const Epilogue& end, float* y) {
  const int64_t N = transposed ? w.rows : w.columns, K = transposed ? w.columns : w.rows;
  const Gemm g{M, N, K, {x, K, 1}, {nullptr, 0, 0}, end, y, N, false};
  if (M == 0 || N == 0) return;
  if (K == 0) return fill_empty(g);
  switch (w.type) {
    case StoredType::float32: return multiply_stored<Engine, float>(g, w, transposed);
    case StoredType::bfloat16: return multiply_stored<Engine, Bf16>(g, w, transposed);
    case StoredType::float16: return multiply_stored<Engine, F16>(g, w, transposed);
  }
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
