// The product with a matrix that stays as its file stores it (stored_matrix.h): nothing of it is copied but the block in
// work, which is turned into panels on the way into the cache, from whichever element type the file has.
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

// b [K, N] is w turned over, or w itself.
template <class F, class T>
void multiply_stored(Gemm g, const StoredMatrix& w, bool turned) {
  const StoredView<T> b{static_cast<const T*>(w.data), turned ? 1 : w.columns, turned ? w.columns : 1};
  gemm_blocked<F>(g, panels_of<F>(b));
}

// y [M, rows] = x [M, columns] · wᵀ when turned, else y [M, columns] = x [M, rows] · w; and + bias.
template <class F>
void gemm_stored(const float* x, int64_t M, const StoredMatrix& w, bool turned, const float* bias, float* y) {
  const int64_t N = turned ? w.rows : w.columns, K = turned ? w.columns : w.rows;
  const Gemm g{M, N, K, {x, K, 1}, {nullptr, 0, 0}, bias, y, N, false};
  if (M == 0 || N == 0) return;
  if (K == 0) return fill_empty(g);
  switch (w.type) {
    case StoredType::float32: return multiply_stored<F, float>(g, w, turned);
    case StoredType::bfloat16: return multiply_stored<F, Bf16>(g, w, turned);
    case StoredType::float16: return multiply_stored<F, F16>(g, w, turned);
  }
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
