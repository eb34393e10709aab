// The micro-kernel: it keeps a tile of c in registers while it reads packed panels of a and b (gemm_panels.h) in order.
#pragma once
#include "gemm_panels.h"

namespace blip2 {
namespace ISA {
namespace {

// c [R, columns] = or += a · b for one packed panel of each: a [words, rows] or, with rows S words apart, [rows, words]; b [words, width]
// with width W or NR and zeros past `columns`. R and the width are template arguments, so that the tile stays in registers.
struct Tile {
  float* c;
  int64_t ldc, columns;
  const float* bias;   // of this panel's first column, or null
  bool accumulate;
};

template <class F, int S, int R, int V>
void micro_kernel(int64_t words, const float* a, const float* b, const Tile& tile) {
  vf acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) acc[r][v] = vf{};
  for (int64_t word = 0; word < words; word++) {
    vf bv[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) bv[v] = load(b + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vf av = F::broadcast(a + r * (S ? S : 1));
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) acc[r][v] = F::multiply_add(acc[r][v], av, bv[v]);
    }
    a += S ? 1 : R;
    b += V * W;
  }
  if (tile.columns == V * W) {
    vf add[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) add[v] = tile.bias ? load(tile.bias + v * W) : vf{};
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      float* row = tile.c + r * tile.ldc;
#pragma GCC unroll 2
      for (int v = 0; v < V; v++)
        store(row + v * W, acc[r][v] + (tile.accumulate ? load(row + v * W) : add[v]));
    }
    return;
  }
#pragma GCC unroll 2
  for (int v = 0; v < V; v++) {
    const int64_t count = smaller(W, tile.columns - v * W);
    if (count <= 0) return;
    const vf add = tile.bias ? load_part(tile.bias + v * W, count) : vf{};
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      float* at = tile.c + r * tile.ldc + v * W;
      store_part(at, acc[r][v] + (tile.accumulate ? load_part(at, count) : add), count);
    }
  }
}

using MicroKernel = void (*)(int64_t, const float*, const float*, const Tile&);

template <class F, int S, int V>
MicroKernel micro_kernel_for(int64_t rows) {
  static const MicroKernel table[] = {
      nullptr, micro_kernel<F, S, 1, V>, micro_kernel<F, S, 2, V>, micro_kernel<F, S, 3, V>, micro_kernel<F, S, 4, V>,
#if !defined(__AVX512F__) && !defined(__AVX2__) && !defined(__aarch64__)
  };
#else
      micro_kernel<F, S, 5, V>, micro_kernel<F, S, 6, V>,
#if defined(__AVX512F__) || defined(__aarch64__)
      micro_kernel<F, S, 7, V>, micro_kernel<F, S, 8, V>, micro_kernel<F, S, 9, V>, micro_kernel<F, S, 10, V>, micro_kernel<F, S, 11, V>,
      micro_kernel<F, S, 12, V>,
#endif
#if defined(__AVX512F__)
      micro_kernel<F, S, 13, V>, micro_kernel<F, S, 14, V>,
#endif
  };
#endif
  return table[rows];
}

// Rows [row, row_end) of c, of `columns` columns, from packed panels of a, whose first row is 0, and of b, whose column j begins at
// b + j · b_stride. A panel of a stays in the cache for all panels of b. `roomy`: whole panels fit in the rows of c.
template <class F, int S = 0>
void multiply_tile(int64_t words, const float* a, const float* b, int64_t b_stride, int64_t row, int64_t row_end, int64_t columns,
                   float* c, int64_t ldc, const float* bias, bool accumulate, bool roomy = false) {
  for (int64_t i = row; i < row_end; i += MR) {
    const int64_t rows = smaller(MR, row_end - i);
    const MicroKernel wide = micro_kernel_for<F, S, NV>(rows), narrow = micro_kernel_for<F, S, 1>(rows);
    for (int64_t j = 0; j < columns; j += NR) {
      const int64_t count = smaller(NR, columns - j), width = panel_width(count);
      (width == NR ? wide : narrow)(
          words, a + i * (S ? S : words), b + j * b_stride,
          Tile{c + i * ldc + j, ldc, roomy ? width : count, bias ? bias + j : nullptr, accumulate});
    }
  }
}

// Matmul in vector registers, as an engine of gemm_blocked.
template <class F>
struct Registers {
  using Format = F;
  static constexpr int64_t kPanelRows = MR;                       // of one panel of a
  static constexpr bool kStrips = true;                           // see multiply_strips
  static int64_t row_words(int64_t depth) { return depth; }       // of a panel of a, per row
  static constexpr auto pack = pack_a<F>;
  static void multiply(int64_t words, const float* a, const float* b, int64_t b_stride, int64_t row, int64_t row_end,
                       int64_t columns, float* c, int64_t ldc, const float* bias, bool accumulate) {
    multiply_tile<F>(words, a, b, b_stride, row, row_end, columns, c, ldc, bias, accumulate);
  }
};

}  // namespace
}  // namespace ISA
}  // namespace blip2
