// Matrix product in the manner of BLIS (Van Zee & van de Geijn 2015): both operands are copied into panels that the
// micro-kernel reads in order, and the micro-kernel keeps a tile of c in registers.
#include "gemm.h"

namespace blip2 {
namespace ISA {
namespace {

// The register tile: MR rows by NV vectors. 28 of 32 registers with AVX-512, 12 of 16 with AVX2.
#if defined(__AVX512F__)
constexpr int MR = 14;
#elif defined(__AVX2__)
constexpr int MR = 6;
#elif defined(__aarch64__)
constexpr int MR = 12;
#else
constexpr int MR = 4;
#endif
constexpr int NV = 2, NR = NV * W;

constexpr int64_t kDepth = 384;        // K is cut into equal blocks of at most this depth
constexpr int64_t kRows = 4096 / MR * MR, kColumns = 4096;   // of one packed block
constexpr int64_t kTileRows = MR * 8, kTileColumns = NR * 8; // of one task

// One packed panel of a: [K, rows], and of b: [K, width] with width W or NR, columns past `columns` zero.
// c [R, columns] = or += product; R and the width are fixed at compile time so that the tile stays in registers.
struct Tile {
  float* c;
  int64_t ldc, columns;
  const float* bias;   // of this panel's first column, or null
  bool accumulate;
};

template <int R, int V>
void micro_kernel(int64_t K, const float* a, const float* b, const Tile& tile) {
  vf acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) acc[r][v] = vf{};
  for (int64_t k = 0; k < K; k++) {
    vf bv[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) bv[v] = load(b + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vf av = splat(a[r]);
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) acc[r][v] += av * bv[v];
    }
    a += R;
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

template <int V>
MicroKernel micro_kernel_for(int64_t rows) {
  static const MicroKernel table[] = {
      nullptr, micro_kernel<1, V>, micro_kernel<2, V>, micro_kernel<3, V>, micro_kernel<4, V>,
#if !defined(__AVX512F__) && !defined(__AVX2__) && !defined(__aarch64__)
  };
#else
      micro_kernel<5, V>, micro_kernel<6, V>,
#if defined(__AVX512F__) || defined(__aarch64__)
      micro_kernel<7, V>, micro_kernel<8, V>, micro_kernel<9, V>, micro_kernel<10, V>, micro_kernel<11, V>,
      micro_kernel<12, V>,
#endif
#if defined(__AVX512F__)
      micro_kernel<13, V>, micro_kernel<14, V>,
#endif
  };
#endif
  return table[rows];
}

// Turns a W by W block over in registers by exchanging ever smaller halves between rows d apart: log2(W) rounds.
inline void transpose(vf (&rows)[W]) {
#pragma GCC unroll 4
  for (int d = W / 2; d > 0; d /= 2) {
    vi low, high;   // which lanes of (a, b) the two results take; lanes of b count from W
#pragma GCC unroll 16
    for (int j = 0; j < W; j++) {
      low[j] = (j & d) ? j - d + W : j;
      high[j] = (j & d) ? j + W : j + d;
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) {
      if (i & d) continue;
      const vf a = rows[i], b = rows[i + d];
#if defined(__clang__)
      for (int j = 0; j < W; j++) {
        rows[i][j] = (j & d) ? b[j - d] : a[j];
        rows[i + d][j] = (j & d) ? b[j] : a[j + d];
      }
#else
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + d] = __builtin_shuffle(a, b, high);
#endif
    }
  }
}

// Lines [l, l + count) of a panel whose lines are contiguous: to[k * width + l + i] = from[i * line_stride + k].
void pack_lines(const float* from, int64_t line_stride, int64_t count, int64_t depth, int64_t width, int64_t l,
                float* to) {
  // A vector may reach past the panel's row: into the next row, which is written later. Only the last row must not.
  const int64_t lanes = smaller(W, width - l);
  const bool spill = lanes < W && l == 0;
  for (int64_t k = 0; k < depth; k += W) {
    const int64_t steps = smaller(W, depth - k);
    vf rows[W];
    if (steps == W && count == W) {
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) rows[i] = load(from + i * line_stride + k);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) {
        if (i >= count) rows[i] = vf{};
        else if (steps == W) rows[i] = load(from + i * line_stride + k);
        else rows[i] = load_part(from + i * line_stride + k, steps);
      }
    }
    transpose(rows);
    float* at = to + k * width + l;
    if (steps == W && (lanes == W || (spill && k + W < depth))) {
#pragma GCC unroll 16
      for (int j = 0; j < W; j++) store(at + j * width, rows[j]);
    } else {
      for (int64_t j = 0; j < steps; j++) store_part(at + j * width, rows[j], lanes);
    }
  }
}

// `lines` lines of `depth` numbers (line l, position k at from[l * line_stride + k * depth_stride]) → to [depth, width],
// zero beyond `lines`.
void pack_panel(const float* from, int64_t line_stride, int64_t depth_stride, int64_t lines, int64_t depth,
                int64_t width, float* to) {
  if (depth_stride == 1) {
    for (int64_t l = 0; l < width; l += W)
      pack_lines(from + l * line_stride, line_stride, larger(0, smaller(W, lines - l)), depth, width, l, to);
    return;
  }
  for (int64_t k = 0; k < depth; k++) {
    const float* line = from + k * depth_stride;
    float* at = to + k * width;
    if (line_stride == 1 && lines == width) {
      for (int64_t l = 0; l < width; l++) at[l] = line[l];
    } else {
      for (int64_t l = 0; l < lines; l++) at[l] = line[l * line_stride];
      for (int64_t l = lines; l < width; l++) at[l] = 0;
    }
  }
}

void pack_a(const Strided& a, int64_t row, int64_t rows, int64_t k, int64_t depth, float* to) {
  pack_panel(a.data + row * a.row_stride + k * a.column_stride, a.row_stride, a.column_stride, rows, depth, rows, to);
}

int64_t panel_width(int64_t columns) { return columns <= W ? W : NR; }

void pack_b(const Strided& b, int64_t column, int64_t columns, int64_t k, int64_t depth, float* to) {
  pack_panel(b.data + column * b.column_stride + k * b.row_stride, b.column_stride, b.row_stride, columns, depth,
             panel_width(columns), to);
}

// Rows [row, row_end) and columns [column, column_end) of c, from packed panels whose first row and column is 0.
void multiply_tile(int64_t depth, const float* a, const float* b, int64_t row, int64_t row_end, int64_t column,
                   int64_t column_end, float* c, int64_t ldc, const float* bias, bool accumulate,
                   bool roomy = false) {
  for (int64_t j = column; j < column_end; j += NR) {
    const int64_t columns = smaller(NR, column_end - j);
    const bool wide = panel_width(columns) == NR;
    for (int64_t i = row; i < row_end; i += MR) {
      const int64_t rows = smaller(MR, row_end - i);
      const MicroKernel kernel = wide ? micro_kernel_for<NV>(rows) : micro_kernel_for<1>(rows);
      kernel(depth, a + i * depth, b + j * depth,
             Tile{c + i * ldc + j, ldc, roomy ? panel_width(columns) : columns, bias ? bias + j : nullptr, accumulate});
    }
  }
}

void fill_empty(const Gemm& g) {
  if (g.accumulate) return;
  for (int64_t i = 0; i < g.M; i++)
    for (int64_t j = 0; j < g.N; j++) g.c[i * g.ldc + j] = g.bias ? g.bias[j] : 0.f;
}

float dot(const float* x, const float* y, int64_t n) {
  vf s0{}, s1{}, s2{}, s3{};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
    s0 += load(x + i) * load(y + i);
    s1 += load(x + i + W) * load(y + i + W);
    s2 += load(x + i + 2 * W) * load(y + i + 2 * W);
    s3 += load(x + i + 3 * W) * load(y + i + 3 * W);
  }
  for (; i + W <= n; i += W) s0 += load(x + i) * load(y + i);
  if (i < n) s1 += load_part(x + i, n - i) * load_part(y + i, n - i);
  return sum_of((s0 + s1) + (s2 + s3));
}

// Few rows against a matrix stored by columns (x·Wᵀ in decoding): reading b once is the whole cost, so it is not packed.
void multiply_few_rows(const Gemm& g) {
  parallel_chunks(g.N, larger(8, 65536 / g.K), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++)
      for (int64_t i = 0; i < g.M; i++) {
        const float sum = dot(g.a.data + i * g.a.row_stride, g.b.data + j * g.b.column_stride, g.K);
        float& c = g.c[i * g.ldc + j];
        c = sum + (g.accumulate ? c : g.bias ? g.bias[j] : 0.f);
      }
  });
}

}  // namespace

void gemm(const Gemm& g) {
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) return fill_empty(g);
  if (g.M <= 4 && g.a.column_stride == 1 && g.b.row_stride == 1) return multiply_few_rows(g);
  const int64_t depth_blocks = ceil_div(g.K, kDepth), depth = ceil_div(g.K, depth_blocks);
  const int64_t packed_columns = ceil_div(smaller(g.N, kColumns), NR) * NR;
  const int64_t packed_rows = smaller(g.M, kRows);
  float* packed_b = scratch(kPackedPanels, depth * (packed_columns + packed_rows) + 16);
  float* packed_a = packed_b + depth * packed_columns;

  for (int64_t j0 = 0; j0 < g.N; j0 += kColumns)
    for (int64_t k0 = 0; k0 < g.K; k0 += depth)
      for (int64_t i0 = 0; i0 < g.M; i0 += kRows) {
        const int64_t columns = smaller(kColumns, g.N - j0), rows = smaller(kRows, g.M - i0);
        const int64_t d = smaller(depth, g.K - k0);
        const int64_t b_panels = i0 == 0 ? ceil_div(columns, NR) : 0, a_panels = ceil_div(rows, MR);
        // A packing task takes several panels, or the hand-over costs more than the copy.
        const int64_t group = larger(1, 16384 / (d * NR));
        const int64_t b_tasks = ceil_div(b_panels, group), a_tasks = ceil_div(a_panels, 2 * group);
        parallel_tasks(b_tasks + a_tasks, [&](int64_t task) {
          if (task < b_tasks) {
            for (int64_t p = task * group; p < smaller(b_panels, (task + 1) * group); p++)
              pack_b(g.b, j0 + p * NR, smaller(NR, columns - p * NR), k0, d, packed_b + p * NR * d);
          } else {
            const int64_t first = (task - b_tasks) * 2 * group;
            for (int64_t p = first; p < smaller(a_panels, first + 2 * group); p++)
              pack_a(g.a, i0 + p * MR, smaller(MR, rows - p * MR), k0, d, packed_a + p * MR * d);
          }
        });
        const int64_t tiles_down = ceil_div(rows, kTileRows);
        // Few rows: narrower tiles, so that every thread gets some.
        const int64_t tile_columns = tiles_down >= 8 ? kTileColumns : larger(NR, kTileColumns * tiles_down / 8 / NR * NR);
        const int64_t tiles_across = ceil_div(columns, tile_columns);
        parallel_tasks(tiles_down * tiles_across, [&](int64_t task) {
          const int64_t i = task / tiles_across * kTileRows, j = task % tiles_across * tile_columns;
          multiply_tile(d, packed_a, packed_b, i, smaller(rows, i + kTileRows), j, smaller(columns, j + tile_columns),
                        g.c + i0 * g.ldc + j0, g.ldc, g.bias && k0 == 0 ? g.bias + j0 : nullptr,
                        g.accumulate || k0 > 0);
        });
      }
}

void gemm_local(const Gemm& g, bool roomy) {
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) return fill_empty(g);
  const int64_t packed_columns = ceil_div(g.N, NR) * NR;
  float* packed_b = scratch(kLocalPanels, g.K * (packed_columns + g.M));
  float* packed_a = packed_b + g.K * packed_columns;
  for (int64_t j = 0; j < g.N; j += NR) pack_b(g.b, j, smaller(NR, g.N - j), 0, g.K, packed_b + j * g.K);
  for (int64_t i = 0; i < g.M; i += MR) pack_a(g.a, i, smaller(MR, g.M - i), 0, g.K, packed_a + i * g.K);
  multiply_tile(g.K, packed_a, packed_b, 0, g.M, 0, g.N, g.c, g.ldc, g.bias, g.accumulate, roomy);
}

}  // namespace ISA
}  // namespace blip2
