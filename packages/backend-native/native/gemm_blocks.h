// The matrix product block by block, in the manner of BLIS (Van Zee & van de Geijn 2015): what is packed at a time is chosen
// to stay in the caches. `Engine` is Registers<a format>, or Tiles of gemm_amx.cc.
#pragma once
#include "gemm_registers.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kColumns = 4096;        // of one block of b
constexpr int64_t kTilePanels = 8;        // of b in one task: with kDepth words they fit into the second-level cache
constexpr int64_t kStripColumns = 1024;   // at most this many columns are one task

void fill_empty(const Gemm& g) {
  if (g.accumulate) return;
  for (int64_t i = 0; i < g.M; i++)
    for (int64_t j = 0; j < g.N; j++) g.c[i * g.ldc + j] = g.bias ? g.bias[j] : 0.f;
}

// How K is cut: `depth` words per block, `words` in all.
template <class F>
struct Depth {
  int64_t words, depth;
  explicit Depth(int64_t K) : words(panel_words<F>(K)) {
    depth = ceil_div(ceil_div(words, ceil_div(words, kDepth)), F::kGrain) * F::kGrain;
  }
};

// Where the block of b that begins at column j0 and word w0 lies when the whole of b [K, N] is packed.
template <class F>
int64_t packed_block(const Depth<F>& cut, int64_t N, int64_t j0, int64_t w0) {
  return j0 * cut.words + ceil_div(smaller(kColumns, N - j0), NR) * NR * w0;
}

template <class F>
int64_t packed_floats(int64_t N, int64_t K) {
  return ceil_div(N, NR) * NR * panel_words<F>(K);
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

// Few columns and many rows: every column in one task, which packs its rows of a itself, one panel at a time, so that they
// stay in the nearest cache.
template <class F>
void multiply_strips(const Gemm& g, const Panels& b) {
  const Depth<F> cut(g.K);
  const int64_t b_panels = ceil_div(g.N, NR);
  float* room_b = g.packed_b ? nullptr : scratch(kPackedPanels, cut.depth * b_panels * NR);
  const int64_t strip = smaller(8, ceil_div(g.M, MR * 16)) * MR;
  const bool in_rows = g.a.column_stride == 1;
  for (int64_t w0 = 0; w0 < cut.words; w0 += cut.depth) {
    const int64_t d = smaller(cut.depth, cut.words - w0), k0 = w0 * F::kPerWord;
    const int64_t numbers = smaller(g.K - k0, d * F::kPerWord);
    const float* packed_b = g.packed_b ? g.packed_b + packed_block<F>(cut, g.N, 0, w0) : room_b;
    // A packing task takes several panels, or the hand-over costs more than the copy.
    const int64_t group = larger(1, 16384 / (d * NR));
    if (room_b)
      parallel_tasks(ceil_div(b_panels, group), [&](int64_t task) {
        for (int64_t p = task * group; p < smaller(b_panels, (task + 1) * group); p++)
          b.pack(b.matrix, p * NR, smaller(NR, g.N - p * NR), k0, numbers, room_b + p * NR * d);
      });
    const float* bias = k0 == 0 ? g.bias : nullptr;
    const bool accumulate = g.accumulate || k0 > 0;
    parallel_tasks(ceil_div(g.M, strip), [&](int64_t task) {
      float* panel = scratch(kLocalPanels, kRowStride * MR + 16);
      for (int64_t i = task * strip; i < smaller(g.M, (task + 1) * strip); i += MR) {
        const int64_t count = smaller(MR, g.M - i);
        float* at = g.c + i * g.ldc;
        if (in_rows) {
          copy_a<F>(g.a, i, count, k0, numbers, panel, kRowStride);
          multiply_tile<F, kRowStride>(d, panel, packed_b, 0, count, 0, g.N, at, g.ldc, bias, accumulate);
        } else {
          pack_a<F>(g.a, i, count, k0, numbers, panel);
          multiply_tile<F>(d, panel, packed_b, 0, count, 0, g.N, at, g.ldc, bias, accumulate);
        }
      }
    });
  }
}

// One block of the product with its rows of a packed: c [rows, columns] from `d` words that begin at number k0.
struct Block {
  int64_t rows, columns, d, k0, numbers;
  const float *a, *bias;
  float* c;
  int64_t ldc;
  bool accumulate;
};

// b has been packed before.
template <class Engine>
void multiply_packed(const Block& block, const float* b) {
  const int64_t tiles_down = ceil_div(block.rows, Engine::kTileRows), widest = kTilePanels * NR;
  // Few rows: narrower tiles, so that every thread gets some.
  const int64_t width = tiles_down >= 8 ? widest : larger(NR, widest * tiles_down / 8 / NR * NR);
  const int64_t tiles_across = ceil_div(block.columns, width);
  parallel_tasks(tiles_down * tiles_across, [&](int64_t task) {
    const int64_t i = task / tiles_across * Engine::kTileRows, j = task % tiles_across * width;
    Engine::multiply(block.d, block.a, b, i, smaller(block.rows, i + Engine::kTileRows), j,
                     smaller(block.columns, j + width), block.c, block.ldc, block.bias, block.accumulate);
  });
}

// A task packs some panels of b, from column j0 on, for itself and uses them for every row while they are in its cache.
template <class Engine>
void multiply_packing(const Block& block, const Panels& b, int64_t j0) {
  const int64_t panels = ceil_div(block.columns, NR);
  const int64_t group = smaller(kTilePanels, ceil_div(panels, 4 * threads()));
  parallel_tasks(ceil_div(panels, group), [&](int64_t task) {
    const int64_t j = task * group * NR, width = smaller(group * NR, block.columns - j);
    float* packed = scratch(kLocalPanels, block.d * group * NR);
    for (int64_t p = 0; p < width; p += NR)
      b.pack(b.matrix, j0 + j + p, smaller(NR, width - p), block.k0, block.numbers, packed + p * block.d);
    for (int64_t i = 0; i < block.rows; i += Engine::kTileRows)
      Engine::multiply(block.d, block.a, packed, i, smaller(block.rows, i + Engine::kTileRows), 0, width, block.c + j,
                       block.ldc, block.bias ? block.bias + j : nullptr, block.accumulate);
  });
}

// The product with M, N, K > 0, block by block. `b` stands for g.b, and is not read when g.packed_b is there.
template <class Engine>
void gemm_blocked(const Gemm& g, const Panels& b) {
  using F = typename Engine::Format;
  if constexpr (Engine::kStrips)
    if (g.N <= kStripColumns && g.M >= 8 * MR) return multiply_strips<F>(g, b);
  constexpr int64_t kPanel = Engine::kPanelRows, kRows = 4096 / kPanel * kPanel;
  const Depth<F> cut(g.K);
  float* packed_a = scratch(kPackedPanels, Engine::row_words(cut.depth) * smaller(ceil_div(g.M, kPanel) * kPanel, kRows) + 16);

  for (int64_t j0 = 0; j0 < g.N; j0 += kColumns)
    for (int64_t w0 = 0; w0 < cut.words; w0 += cut.depth)
      for (int64_t i0 = 0; i0 < g.M; i0 += kRows) {
        const int64_t columns = smaller(kColumns, g.N - j0), rows = smaller(kRows, g.M - i0);
        const int64_t d = smaller(cut.depth, cut.words - w0), k0 = w0 * F::kPerWord;
        const int64_t numbers = smaller(g.K - k0, d * F::kPerWord);
        const int64_t group = 2 * larger(1, 16384 / (d * NR)), a_panels = ceil_div(rows, kPanel);
        parallel_tasks(ceil_div(a_panels, group), [&](int64_t task) {
          for (int64_t p = task * group; p < smaller(a_panels, (task + 1) * group); p++)
            Engine::pack(g.a, i0 + p * kPanel, smaller(kPanel, rows - p * kPanel), k0, numbers,
                         packed_a + p * kPanel * Engine::row_words(d));
        });
        const Block block{rows,  columns, d, k0, numbers, packed_a, g.bias && k0 == 0 ? g.bias + j0 : nullptr,
                          g.c + i0 * g.ldc + j0, g.ldc, g.accumulate || k0 > 0};
        if (g.packed_b) multiply_packed<Engine>(block, g.packed_b + packed_block<F>(cut, g.N, j0, w0));
        else multiply_packing<Engine>(block, b, j0);
      }
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
