// Matrix product in the manner of BLIS (Van Zee & van de Geijn 2015): the micro-kernel keeps a tile of c in registers while
// it reads panels of a and b (gemm_panels.h) in order; what is packed at a time is chosen to stay in the caches.
#pragma once
#include "gemm_panels.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kStripColumns = 1024;   // at most this many columns are one task

// One packed panel of a: [words, rows] or, with rows S words apart, [rows, words]; and of b: [words, width] with width W or NR, columns past `columns` zero.
// c [R, columns] = or += product; R and the width are fixed at compile time so that the tile stays in registers.
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
      const vf av = F::spread(a + r * (S ? S : 1));
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
  float whole[V * W];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    float* row = tile.c + r * tile.ldc;
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) store(whole + v * W, acc[r][v]);
    for (int64_t j = 0; j < tile.columns; j++)
      row[j] = whole[j] + (tile.accumulate ? row[j] : tile.bias ? tile.bias[j] : 0.f);
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

// Rows [row, row_end) and columns [column, column_end) of c, from packed panels whose first row and column is 0.
template <class F, int S = 0>
void multiply_tile(int64_t words, const float* a, const float* b, int64_t row, int64_t row_end, int64_t column,
                   int64_t column_end, float* c, int64_t ldc, const float* bias, bool accumulate,
                   bool roomy = false) {
  for (int64_t j = column; j < column_end; j += NR) {
    const int64_t columns = smaller(NR, column_end - j);
    const bool wide = panel_width(columns) == NR;
    for (int64_t i = row; i < row_end; i += MR) {
      const int64_t rows = smaller(MR, row_end - i);
      const MicroKernel kernel = wide ? micro_kernel_for<F, S, NV>(rows) : micro_kernel_for<F, S, 1>(rows);
      kernel(words, a + i * (S ? S : words), b + j * words,
             Tile{c + i * ldc + j, ldc, roomy ? panel_width(columns) : columns, bias ? bias + j : nullptr, accumulate});
    }
  }
}

void fill_empty(const Gemm& g) {
  if (g.accumulate) return;
  for (int64_t i = 0; i < g.M; i++)
    for (int64_t j = 0; j < g.N; j++) g.c[i * g.ldc + j] = g.bias ? g.bias[j] : 0.f;
}

// How K is cut: `depth` words per block, `words` in all.
template <class F>
struct Depth {
  int64_t words, depth;
  explicit Depth(int64_t K) : words(ceil_div(K, F::kPerWord)) {
    depth = ceil_div(words, ceil_div(words, kDepth));
  }
};

// Where the block of b that begins at column j0 and word w0 lies when the whole of b [K, N] is packed.
template <class F>
int64_t packed_block(const Depth<F>& cut, int64_t N, int64_t j0, int64_t w0) {
  return j0 * cut.words + ceil_div(smaller(kColumns, N - j0), NR) * NR * w0;
}

template <class F>
int64_t packed_floats(int64_t N, int64_t K) {
  return ceil_div(N, NR) * NR * ceil_div(K, F::kPerWord);
}

template <class F>
void pack_all(const Strided& b, int64_t N, int64_t K, float* to) {
  if (N == 0 || K == 0) return;
  const Depth<F> cut(K);
  const int64_t blocks = ceil_div(cut.words, cut.depth);
  parallel_tasks(ceil_div(N, NR) * blocks, [&](int64_t task) {
    const int64_t j = task / blocks * NR, w0 = task % blocks * cut.depth, j0 = j / kColumns * kColumns;
    const int64_t d = smaller(cut.depth, cut.words - w0), k0 = w0 * F::kPerWord;
    pack_b<F>(b, j, smaller(NR, N - j), k0, smaller(K - k0, d * F::kPerWord),
              to + packed_block<F>(cut, N, j0, w0) + (j - j0) * d);
  });
}

// The product with M, N, K > 0, block by block. `b` stands for g.b, and is not read when g.packed_b is there.
template <class F>
void gemm_blocked(const Gemm& g, const Panels& b) {
  const Depth<F> cut(g.K);
  // Every column in one task: it packs its rows of a itself, one panel at a time, and they stay in the nearest cache.
  const bool strips = g.N <= kStripColumns && g.M >= 8 * MR;
  const int64_t packed_columns = g.packed_b ? 0 : ceil_div(smaller(g.N, kColumns), NR) * NR;
  const int64_t packed_rows = strips ? 0 : smaller(g.M, kRows);
  float* room_b = scratch(kPackedPanels, cut.depth * (packed_columns + packed_rows) + 16);
  float* packed_a = room_b + cut.depth * packed_columns;

  for (int64_t j0 = 0; j0 < g.N; j0 += kColumns)
    for (int64_t w0 = 0; w0 < cut.words; w0 += cut.depth)
      for (int64_t i0 = 0; i0 < g.M; i0 += kRows) {
        const int64_t columns = smaller(kColumns, g.N - j0), rows = smaller(kRows, g.M - i0);
        const int64_t d = smaller(cut.depth, cut.words - w0), k0 = w0 * F::kPerWord;
        const int64_t numbers = smaller(g.K - k0, d * F::kPerWord);
        const float* packed_b = g.packed_b ? g.packed_b + packed_block<F>(cut, g.N, j0, w0) : room_b;
        const int64_t b_panels = i0 == 0 && !g.packed_b ? ceil_div(columns, NR) : 0;
        const int64_t a_panels = strips ? 0 : ceil_div(rows, MR);
        // A packing task takes several panels, or the hand-over costs more than the copy.
        const int64_t group = larger(1, 16384 / (d * NR));
        const int64_t b_tasks = ceil_div(b_panels, group), a_tasks = ceil_div(a_panels, 2 * group);
        parallel_tasks(b_tasks + a_tasks, [&](int64_t task) {
          if (task < b_tasks) {
            for (int64_t p = task * group; p < smaller(b_panels, (task + 1) * group); p++)
              b.pack(b.matrix, j0 + p * NR, smaller(NR, columns - p * NR), k0, numbers, room_b + p * NR * d);
          } else {
            const int64_t first = (task - b_tasks) * 2 * group;
            for (int64_t p = first; p < smaller(a_panels, first + 2 * group); p++)
              pack_a<F>(g.a, i0 + p * MR, smaller(MR, rows - p * MR), k0, numbers, packed_a + p * MR * d);
          }
        });
        const float* bias = g.bias && k0 == 0 ? g.bias + j0 : nullptr;
        const bool accumulate = g.accumulate || k0 > 0;
        float* c = g.c + i0 * g.ldc + j0;
        if (strips) {
          const int64_t strip = smaller(8, ceil_div(rows, MR * 16)) * MR;
          parallel_tasks(ceil_div(rows, strip), [&](int64_t task) {
            float* panel = scratch(kLocalPanels, kRowStride * MR + 16);
            const bool in_rows = g.a.column_stride == 1;
            for (int64_t i = task * strip; i < smaller(rows, (task + 1) * strip); i += MR) {
              const int64_t count = smaller(MR, rows - i);
              float* at = c + i * g.ldc;
              if (in_rows) {
                copy_a<F>(g.a, i0 + i, count, k0, numbers, panel);
                multiply_tile<F, kRowStride>(d, panel, packed_b, 0, count, 0, columns, at, g.ldc, bias, accumulate);
              } else {
                pack_a<F>(g.a, i0 + i, count, k0, numbers, panel);
                multiply_tile<F>(d, panel, packed_b, 0, count, 0, columns, at, g.ldc, bias, accumulate);
              }
            }
          });
          continue;
        }
        const int64_t tiles_down = ceil_div(rows, kTileRows);
        // Few rows: narrower tiles, so that every thread gets some.
        const int64_t tile_columns = tiles_down >= 8 ? kTileColumns : larger(NR, kTileColumns * tiles_down / 8 / NR * NR);
        const int64_t tiles_across = ceil_div(columns, tile_columns);
        parallel_tasks(tiles_down * tiles_across, [&](int64_t task) {
          const int64_t i = task / tiles_across * kTileRows, j = task % tiles_across * tile_columns;
          multiply_tile<F>(d, packed_a, packed_b, i, smaller(rows, i + kTileRows), j,
                           smaller(columns, j + tile_columns), c, g.ldc, bias, accumulate);
        });
      }
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
