// Matmul with an int8 weight (weight_view.h). Rows of x are rounded to int8 (int8_rows.h), a tile of int32 sums stays in registers for the
// whole summed axis, and its epilogue is applied at once. x · wᵀ and dy · w read the same bytes. For the second, the scales of the weight
// lie along the summed axis and are multiplied into dy before it is rounded (SwitchBack, Wortsman et al. 2023).
// An engine multiplies words of four bytes: the weight's are unsigned, q + 128, since vpdpbusd needs that; the sums of a row begin at
// -128 · Σ q of x, so nothing has to be corrected afterwards.
#pragma once
#include "gemm_blocks.h"
#include "int8_rows.h"

namespace blip2 {
namespace ISA {
namespace {

// Rows of x in panels of R ≤ MR rows: [words][R]. Panels have nearly equal heights, since a low one is limited by latency.
struct RowPanels {
  int64_t M, count, words;
  int32_t* data;
  float* scales;      // [M]
  int32_t* starts;    // [M]
  int64_t first(int64_t p) const { return M * p / count; }
};

template <class Engine>
void quantise_panel(const float* x, const float* by, int64_t K, const RowPanels& to, int64_t p) {
  static_assert(Engine::kRows <= W, "a panel is transposed in vectors");
  const int64_t first = to.first(p), R = to.first(p + 1) - first;
  float inverse[W];
  vi sums[W];
  for (int64_t r = 0; r < R; r++) {
    const RowScale s = scale_of(x + (first + r) * K, by, K);
    to.scales[first + r] = s.scale, inverse[r] = s.inverse, sums[r] = vi{};
  }
  int32_t* at = to.data + first * to.words;
  for (int64_t w = 0; w < to.words; w += W) {
    vf rows[W];
    for (int64_t r = 0; r < W; r++) {
      const vi q = r < R ? quantised_words(x + (first + r) * K, by, 4 * w, K, inverse[r]) : vi{};
      rows[r] = (vf)q;
      if (r < R) sums[r] = Engine::add_bytes(sums[r], q);
    }
    transpose(rows);
    for (int64_t i = 0; i < smaller(W, to.words - w); i++) store_part(reinterpret_cast<float*>(at + (w + i) * R), rows[i], R);
  }
  for (int64_t r = 0; r < R; r++) {
    int32_t total = 0;
    for (int i = 0; i < W; i++) total += sums[r][i];
    to.starts[first + r] = -128 * total;
  }
}

// x [M, K], each column times `by`, in memory of the calling thread. K is padded to whole blocks.
template <class Engine>
RowPanels quantise_rows(const float* x, const float* by, int64_t M, int64_t K) {
  const int64_t words = blocks_of(K) * (kBlockSide / 4);
  int32_t* room = reinterpret_cast<int32_t*>(scratch(kPackedPanels, M * (words + 2)));
  const RowPanels panels{M, ceil_div(M, Engine::kRows), words, room, reinterpret_cast<float*>(room + M * words), room + M * (words + 1)};
  parallel_chunks(panels.count, rows_per_chunk(Engine::kRows * K), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p++) quantise_panel<Engine>(x, by, K, panels, p);
  });
  return panels;
}

// a · b, rounded before anything is added to it: compilers would fuse the two on some levels only.
static inline vf rounded_product(vf a, vf b) {
  vf product = a * b;
#if defined(__AVX512F__)
  asm("" : "+v"(product));
#elif defined(__x86_64__)
  asm("" : "+x"(product));
#elif defined(__aarch64__)
  asm("" : "+w"(product));
#else
  asm("" : "+m"(product));
#endif
  return product;
}

// A result from an integer sum, and the scales of its columns and of its row.
static inline vf finished_sum(vi sum, vf scales, float row_scale, vf bias) {
  return rounded_product(__builtin_convertvector(sum, vf), rounded_product(scales, splat(row_scale))) + bias;
}

// A tile's place in the result, and the scales of its rows and columns.
struct Tile8 {
  const int32_t* starts;
  const float *row_scales, *column_scales, *bias;
  float* c;
  int64_t ldc, columns;   // columns to write, at most 2 W
};

// Memory that is read next, `step` bytes for every word.
struct Ahead {
  const char* next;
  int64_t step;
};

static inline vi load_words(const uint8_t* p) { return (vi)load(reinterpret_cast<const float*>(p)); }

// Writes the sums of R rows and 2 W columns, scaled and with the bias.
template <int R>
void write_tile(const vi (&sums)[R][2], const Tile8& t) {
#pragma GCC unroll 2
  for (int v = 0; v < 2; v++) {
    const int64_t count = smaller(W, t.columns - v * W);
    if (count <= 0) return;
    const vf scales = load_part(t.column_scales + v * W, count), bias = t.bias ? load_part(t.bias + v * W, count) : vf{};
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vf y = finished_sum(sums[r][v], scales, t.row_scales[r], bias);
      if (count == W) store(t.c + r * t.ldc + v * W, y);
      else store_part(t.c + r * t.ldc + v * W, y, count);
    }
  }
}

// R rows of words `a` times the 2 W columns of words at `b`, whose rows are 32 words apart.
template <class Engine, int R>
void tile_int8(int64_t words, const int32_t* a, const uint8_t* b, Ahead ahead, const Tile8& t) {
  vi sums[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = vi{} + t.starts[r];
  for (int64_t w = 0; w < words; w++, a += R, b += 4 * kBlockSide) {
    __builtin_prefetch(ahead.next, 0, 2);
    ahead.next += ahead.step;
    const typename Engine::Words b0 = Engine::words(load_words(b)), b1 = Engine::words(load_words(b + 4 * W));
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) Engine::multiply_add(sums[r][0], sums[r][1], b0, b1, a + r);
  }
  write_tile(sums, t);
}

using TileKernel = void (*)(int64_t, const int32_t*, const uint8_t*, Ahead, const Tile8&);

// The kernel for R rows, 1 ≤ R ≤ Engine::kRows.
template <class Engine, int R = Engine::kRows>
TileKernel tile_kernel(int64_t rows) {
  if constexpr (R == 1) return tile_int8<Engine, 1>;
  else return rows == R ? tile_int8<Engine, R> : tile_kernel<Engine, R - 1>(rows);
}

// Row panels [from, to) times one panel of 32 columns of the weight, from column j of the result on.
// `soon` is what is read after it, with its bytes for every word, or null.
template <class Engine>
void multiply_panel(const Gemm& g, const RowPanels& rows, int64_t from, int64_t to, const uint8_t* panel, Ahead soon,
                    const float* column_scales, int64_t j) {
  constexpr int64_t kPart = 2 * W;   // columns of a tile
  const int64_t columns = smaller(kBlockSide, g.N - j), parts = ceil_div(columns, kPart), tiles = (to - from) * parts;
  const int64_t step = soon.next ? soon.step / tiles : 0;
  const char* next = soon.next ? soon.next : reinterpret_cast<const char*>(panel);
  int64_t done = 0;
  for (int64_t p = from; p < to; p++) {
    const int64_t first = rows.first(p), R = rows.first(p + 1) - first;
    for (int64_t at = 0; at < columns; at += kPart, done++) {
      const Tile8 tile{rows.starts + first, rows.scales + first, column_scales + j + at, g.epilogue.bias ? g.epilogue.bias + j + at : nullptr,
                       g.c + first * g.ldc + j + at, g.ldc, columns - at};
      tile_kernel<Engine>(R)(rows.words, rows.data + first * rows.words, panel + at * 4, {next + done * step * rows.words, step}, tile);
    }
    finish(g, first, first + R, j, columns);
  }
}

constexpr int64_t kTaskProducts = 1 << 18;   // of two numbers in one task, at least

// Calls multiply(p, from, to, last) for panels of columns p and ranges of row panels. A task has neighbouring panels of columns;
// `last` is set for its last one.
template <class F>
void for_panels(const Gemm& g, int64_t row_panels, const F& multiply) {
  const int64_t panels = blocks_of(g.N), wanted = 8 * threads();
  const int64_t least = ceil_div(kTaskProducts, kBlockSide * g.K * g.M);
  const int64_t group = larger(1, larger(panels / wanted, smaller(panels, least))), across = ceil_div(panels, group);
  const int64_t down = larger(1, smaller(ceil_div(wanted, across), smaller(row_panels / 4, kBlockSide * g.K * g.M / kTaskProducts)));
  parallel_tasks(across * down, [&](int64_t task) {
    const int64_t end = smaller(panels, (task / down + 1) * group), part = task % down;
    for (int64_t p = task / down * group; p < end; p++)
      multiply(p, row_panels * part / down, row_panels * (part + 1) / down, p + 1 == end);
  });
}

template <class Engine>
void times_transposed(const Gemm& g, const WeightView& w) {
  const RowPanels rows = quantise_rows<Engine>(g.a.data, static_cast<const float*>(w.parts[2]), g.M, g.K);
  const int64_t panel_bytes = blocks_of(g.K) * kBlockBytes;
  const uint8_t* blocks = static_cast<const uint8_t*>(w.parts[0]);
  for_panels(g, rows.count, [&](int64_t p, int64_t from, int64_t to, bool last) {
    const uint8_t* panel = blocks + p * panel_bytes;
    const Ahead soon{last ? nullptr : reinterpret_cast<const char*>(panel + panel_bytes), 4 * kBlockSide};
    multiply_panel<Engine>(g, rows, from, to, panel, soon, static_cast<const float*>(w.parts[1]), p * kBlockSide);
  });
}

// A block [8 k4][32 n][4 k] as [8 n4][32 k][4 n].
#if defined(__AVX512F__)
inline void turn_block(const uint8_t* from, uint8_t* to) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
#pragma GCC unroll 2
  for (int g = 0; g < 2; g++)
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
      __m512i r[4];   // bytes 4 x 4 within each quarter, then quarters 4 x 4
#pragma GCC unroll 4
      for (int m = 0; m < 4; m++) r[m] = _mm512_shuffle_epi8(_mm512_loadu_si512(from + (4 * g + m) * 128 + h * 64), order);
      const __m512i t0 = _mm512_shuffle_i32x4(r[0], r[1], 0x44), t1 = _mm512_shuffle_i32x4(r[0], r[1], 0xee);
      const __m512i t2 = _mm512_shuffle_i32x4(r[2], r[3], 0x44), t3 = _mm512_shuffle_i32x4(r[2], r[3], 0xee);
      _mm512_storeu_si512(to + (4 * h + 0) * 128 + g * 64, _mm512_shuffle_i32x4(t0, t2, 0x88));
      _mm512_storeu_si512(to + (4 * h + 1) * 128 + g * 64, _mm512_shuffle_i32x4(t0, t2, 0xdd));
      _mm512_storeu_si512(to + (4 * h + 2) * 128 + g * 64, _mm512_shuffle_i32x4(t1, t3, 0x88));
      _mm512_storeu_si512(to + (4 * h + 3) * 128 + g * 64, _mm512_shuffle_i32x4(t1, t3, 0xdd));
    }
}
#else
inline void turn_block(const uint8_t* from, uint8_t* to) {
  for (int k = 0; k < kBlockSide; k++)
    for (int n = 0; n < kBlockSide; n++) to[n / 4 * 128 + k * 4 + n % 4] = from[k / 4 * 128 + n * 4 + k % 4];
}
#endif

// Columns p · 32 … of the weight as a panel, in memory of the calling thread.
inline const uint8_t* turned_panel(const Gemm& g, const WeightView& w, int64_t p) {
  const int64_t down = blocks_of(g.K), across = blocks_of(g.N);
  const uint8_t* blocks = static_cast<const uint8_t*>(w.parts[0]);
  uint8_t* panel = reinterpret_cast<uint8_t*>(scratch(kLocalPanels, down * kBlockBytes / 4));
  for (int64_t n = 0; n < down; n++) {
    const uint8_t* block = blocks + (n * across + p) * kBlockBytes;
    if (n + 8 < down)
      for (int64_t i = 0; i < kBlockBytes; i += 64) __builtin_prefetch(block + 8 * across * kBlockBytes + i, 0, 2);
    turn_block(block, panel + n * kBlockBytes);
  }
  return panel;
}

template <class Engine>
void times_plain(const Gemm& g, const WeightView& w) {
  const RowPanels rows = quantise_rows<Engine>(g.a.data, static_cast<const float*>(w.parts[1]), g.M, g.K);
  for_panels(g, rows.count, [&](int64_t p, int64_t from, int64_t to, bool) {
    multiply_panel<Engine>(g, rows, from, to, turned_panel(g, w, p), {}, static_cast<const float*>(w.parts[2]), p * kBlockSide);
  });
}

template <class Engine>
void times_int8(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y) {
  if (M == 0) return;
  const int64_t N = transposed ? w.rows : w.columns, K = transposed ? w.columns : w.rows;
  const Gemm g{M, N, K, {x, K, 1}, {nullptr, 0, 0}, epilogue, y, N, false};
  if (transposed) times_transposed<Engine>(g, w);
  else times_plain<Engine>(g, w);
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
