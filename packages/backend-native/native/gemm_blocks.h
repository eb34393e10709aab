// Matmul block by block, as in BLIS (Van Zee & van de Geijn 2015): the sizes of packed blocks are chosen to stay in the caches.
// `Engine` is Registers<a format>, or Tiles of gemm_amx.cc.
#pragma once
#include "gemm_registers.h"
#include "activations.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kStripColumns = 1024;        // most columns of one task
constexpr int64_t kPackedWords = 2 << 20;      // words of a packed at a time, to stay in the last-level cache
constexpr int64_t kGroup = 4;                  // most panels of b in one task
constexpr int64_t kFinishPanels = 4;           // panels of a whose rows get their epilogue together
constexpr int64_t kTaskPanels = 8;             // panels of a in one task, at least, since each task packs b again

// c = f(c) for rows [row, row_end) of `columns` columns from column j on.
template <class F>
void map_block(const Gemm& g, int64_t row, int64_t row_end, int64_t j, int64_t columns, const F& f) {
  for (int64_t i = row; i < row_end; i++) {
    float* c = g.c + i * g.ldc + j;
    const float* residual = g.epilogue.residual ? g.epilogue.residual + i * g.ldc + j : nullptr;
    int64_t at = 0;
    for (; at + W <= columns; at += W) {
      const vf y = f(load(c + at));
      store(c + at, residual ? y + load(residual + at) : y);
    }
    if (at < columns) {
      const vf y = f(load_part(c + at, columns - at));
      store_part(c + at, residual ? y + load_part(residual + at, columns - at) : y, columns - at);
    }
  }
}

// Applies activation and residual to a block of c that holds complete sums and their bias, while the block is still in a cache.
void finish(const Gemm& g, int64_t row, int64_t row_end, int64_t j, int64_t columns) {
  if (g.accumulate) return;
  const auto map = [&](const auto& f) { map_block(g, row, row_end, j, columns, f); };
  switch (g.epilogue.activation) {
    case Activation::relu: return map(relu_of);
    case Activation::gelu: return map(gelu_of);
    case Activation::none:
      if (g.epilogue.residual) map([](vf y) { return y; });
  }
}

void fill_empty(const Gemm& g) {
  if (g.accumulate) return;
  for (int64_t i = 0; i < g.M; i++)
    for (int64_t j = 0; j < g.N; j++) g.c[i * g.ldc + j] = g.epilogue.bias ? g.epilogue.bias[j] : 0.f;
  finish(g, 0, g.M, 0, g.N);
}

// How K is divided: `depth` words per block, `words` in total. Blocks begin at multiples of `block` numbers.
template <class F>
struct Depth {
  int64_t words, depth;
  explicit Depth(int64_t K, int64_t block = 1) : words(panel_words<F>(K)) {
    const int64_t grain = larger(F::kGrain, block / F::kPerWord);
    depth = ceil_div(ceil_div(words, ceil_div(words, kDepth)), grain) * grain;
  }
};

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
    const int64_t j = task / blocks * NR, w0 = task % blocks * cut.depth;
    const int64_t d = smaller(cut.depth, cut.words - w0), k0 = w0 * F::kPerWord;
    pack_b<F>(right_operand(b), j, smaller(NR, N - j), k0, smaller(K - k0, d * F::kPerWord), to + j * cut.words + w0 * NR);
  });
}

// For few columns and many rows: a task computes all columns and packs its rows of a itself, one panel at a time, so that they
// stay in the first-level cache.
template <class F>
void multiply_strips(const Gemm& g, const Packable& b) {
  const Depth<F> cut(g.K, b.block);
  const int64_t b_panels = ceil_div(g.N, NR);
  float* room_b = g.packed_b ? nullptr : scratch(kPackedPanels, cut.depth * b_panels * NR);
  const int64_t strip = smaller(8, ceil_div(g.M, MR * 16)) * MR;
  const bool in_rows = g.a.column_stride == 1;
  for (int64_t w0 = 0; w0 < cut.words; w0 += cut.depth) {
    const int64_t d = smaller(cut.depth, cut.words - w0), k0 = w0 * F::kPerWord;
    const int64_t numbers = smaller(g.K - k0, d * F::kPerWord);
    // A packing task covers several panels, so that its overhead stays small.
    const int64_t group = larger(1, 16384 / (d * NR));
    if (room_b)
      parallel_tasks(ceil_div(b_panels, group), [&](int64_t task) {
        const int64_t j = task * group * NR;
        b.pack(b.operand, j, smaller(group * NR, g.N - j), k0, numbers, room_b + j * d);
      });
    const float *bias = k0 == 0 ? g.epilogue.bias : nullptr, *packed_b = room_b ? room_b : g.packed_b + w0 * NR;
    const int64_t b_stride = room_b ? d : cut.words;
    const bool accumulate = g.accumulate || k0 > 0;
    parallel_tasks(ceil_div(g.M, strip), [&](int64_t task) {
      float* panel = scratch(kLocalPanels, kRowStride * MR + 16);
      for (int64_t i = task * strip; i < smaller(g.M, (task + 1) * strip); i += MR) {
        const int64_t count = smaller(MR, g.M - i);
        float* at = g.c + i * g.ldc;
        if (in_rows) copy_a<F>(g.a, i, count, k0, numbers, panel, kRowStride);
        else pack_a<F>(g.a, i, count, k0, numbers, panel);
        const auto multiply = in_rows ? multiply_tile<F, kRowStride> : multiply_tile<F>;
        multiply(d, panel, packed_b, b_stride, 0, count, g.N, at, g.ldc, bias, accumulate, false);
        if (w0 + d == cut.words) finish(g, i, i + count, 0, g.N);
      }
    });
  }
}

// Packed rows of a: block t, words [t · depth, …) of all rows, begins at data + t · block, panel by panel.
struct PackedRows {
  const float* data;
  int64_t first, count, block;
};

template <class Engine>
PackedRows pack_rows(const Gemm& g, const Depth<typename Engine::Format>& cut, int64_t first, int64_t count) {
  using F = typename Engine::Format;
  constexpr int64_t kPanel = Engine::kPanelRows;
  const int64_t panels = ceil_div(count, kPanel), blocks = ceil_div(cut.words, cut.depth);
  const int64_t block = panels * kPanel * Engine::row_words(cut.depth);
  float* to = scratch(kPackedPanels, block * blocks + 16);
  // A task covers several panels, so that its overhead stays small.
  const int64_t group = larger(1, 16384 / (cut.depth * kPanel)), groups = ceil_div(panels, group);
  parallel_tasks(groups * blocks, [&](int64_t task) {
    const int64_t t = task / groups, k0 = t * cut.depth * F::kPerWord;
    const int64_t d = smaller(cut.depth, cut.words - t * cut.depth), numbers = smaller(g.K - k0, d * F::kPerWord);
    for (int64_t p = task % groups * group; p < smaller(panels, (task % groups + 1) * group); p++)
      Engine::pack(g.a, first + p * kPanel, smaller(kPanel, count - p * kPanel), k0, numbers,
                   to + t * block + p * kPanel * Engine::row_words(d));
  });
  return {to, first, count, block};
}

// The packed rows [row, row_end) times `columns` columns of b from column j on, one block of K after the other, so that the sums
// stay in the nearest caches.
template <class Engine>
void multiply_panels(const Gemm& g, const Packable& b, const PackedRows& rows, int64_t row, int64_t row_end, int64_t j,
                     int64_t columns) {
  using F = typename Engine::Format;
  const Depth<F> cut(g.K, b.block);
  float* room = g.packed_b ? nullptr : scratch(kLocalPanels, cut.depth * ceil_div(columns, NR) * NR);
  for (int64_t t = 0; t * cut.depth < cut.words; t++) {
    const int64_t w0 = t * cut.depth, d = smaller(cut.depth, cut.words - w0), k0 = w0 * F::kPerWord;
    const int64_t numbers = smaller(g.K - k0, d * F::kPerWord);
    if (room) b.pack(b.operand, j, columns, k0, numbers, room);
    // A few panels of rows at a time, so that they get their epilogue while they are in the cache.
    const int64_t step = kFinishPanels * Engine::kPanelRows;
    for (int64_t i = row; i < row_end; i += step) {
      const int64_t end = smaller(row_end, i + step);
      Engine::multiply(d, rows.data + t * rows.block, room ? room : g.packed_b + j * cut.words + w0 * NR, room ? d : cut.words, i,
                       end, columns, g.c + rows.first * g.ldc + j, g.ldc, g.epilogue.bias && t == 0 ? g.epilogue.bias + j : nullptr,
                       g.accumulate || t > 0);
      if (w0 + d == cut.words) finish(g, rows.first + i, rows.first + end, j, columns);
    }
  }
}

// Matmul with M, N, K > 0, block by block. `b` replaces g.b, and is not read if g.packed_b is set.
template <class Engine>
void gemm_blocked(const Gemm& g, const Packable& b) {
  using F = typename Engine::Format;
  if constexpr (Engine::kStrips)
    if (g.N <= kStripColumns && g.M >= 8 * MR) return multiply_strips<F>(g, b);
  constexpr int64_t kPanel = Engine::kPanelRows;
  const Depth<F> cut(g.K, b.block);
  const int64_t panels = ceil_div(g.N, NR), wanted = 8 * threads();
  const int64_t group = larger(1, smaller(kGroup, panels / wanted)), across = ceil_div(panels, group);
  const int64_t most = larger(1, kPackedWords / cut.words / kPanel) * kPanel;
  const int64_t height = ceil_div(ceil_div(g.M, ceil_div(g.M, most)), kPanel) * kPanel;   // of equal blocks of rows
  for (int64_t i0 = 0; i0 < g.M; i0 += height) {
    const PackedRows rows = pack_rows<Engine>(g, cut, i0, smaller(height, g.M - i0));
    // With few columns, several tasks share them.
    const int64_t down = larger(1, smaller(ceil_div(wanted, across), rows.count / (kTaskPanels * kPanel)));
    const int64_t share = ceil_div(ceil_div(rows.count, kPanel), down) * kPanel;
    parallel_tasks(across * down, [&](int64_t task) {
      const int64_t j = task / down * group * NR, row = task % down * share;
      if (row < rows.count)
        multiply_panels<Engine>(g, b, rows, row, smaller(rows.count, row + share), j, smaller(group * NR, g.N - j));
    });
  }
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
