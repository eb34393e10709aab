// Matmul with an int4 weight (weight_view.h). Its codes and steps become the bytes of the int8 encoding in three instructions, so sums and
// epilogue are those of gemm_int8.h ("progressive groups", QServe, Lin et al. 2024). Few rows of x read the codes in place, since memory limits
// them; for more rows, a panel of 32 columns is unpacked into the cache first.
#pragma once
#include "gemm_int8.h"

namespace blip2 {
namespace ISA {
namespace {

typedef uint8_t vb __attribute__((vector_size(W * 4)));
typedef uint16_t vh __attribute__((vector_size(W * 4)));

// The steps of W rows, one word for each: the step in both halves, and 128 - 8 · step in all bytes.
struct Steps {
  vh factor;
  vb offset;
};

inline Steps steps_of(const uint8_t* steps) {
  vi s;
#if defined(__AVX512F__)
  s = (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(steps)));
#else
  for (int i = 0; i < W; i++) s[i] = steps[i];
#endif
  return {(vh)(s | s << 16), (vb)((128 - 8 * s) * 0x01010101)};
}

// Four codes a word, one in each byte, as (code - 8) · step + 128. Two bytes are multiplied at once: 15 · 16 has no carry into the other.
inline vi bytes_of_codes(vi codes, const Steps& s) {
  return (vi)((vb)((vh)(codes & 0x0f0f0f0f) * s.factor) + s.offset);
}

// Codes of 32 rows and 32 columns as a block [8 k4][32 n][4 k].
inline void unpack_block(const uint8_t* codes, const uint8_t* steps, uint8_t* to) {
  for (int n = 0; n < kBlockSide; n += W) {
    const Steps s = steps_of(steps + n);
    for (int i = 0; i < 4; i++) {
      const vi pairs = load_words(codes + (i * kBlockSide + n) * 4);
      store(reinterpret_cast<float*>(to + (2 * i * kBlockSide + n) * 4), (vf)bytes_of_codes(pairs, s));
      store(reinterpret_cast<float*>(to + ((2 * i + 1) * kBlockSide + n) * 4), (vf)bytes_of_codes(pairs >> 4, s));
    }
  }
}

// The codes and steps of 32 rows.
struct CodePanel {
  const uint8_t *codes, *steps;
  // Those of a block of 32 columns.
  const uint8_t* block(int64_t b) const { return codes + b * (kGroupBytes / 2); }
  const uint8_t* block_steps(int64_t b) const { return steps + b / 2 * kBlockSide; }
};

inline CodePanel code_panel(const WeightView& w, int64_t p) {
  const int64_t groups = p * groups_of(w.columns);
  return {static_cast<const uint8_t*>(w.parts[0]) + groups * kGroupBytes, static_cast<const uint8_t*>(w.parts[1]) + groups * kBlockSide};
}

// Rows p · 32 … of the weight as a panel of bytes, in memory of the calling thread.
inline const uint8_t* unpacked_panel(const WeightView& w, int64_t p) {
  const int64_t blocks = blocks_of(w.columns);
  const CodePanel codes = code_panel(w, p);
  uint8_t* panel = reinterpret_cast<uint8_t*>(scratch(kLocalPanels, blocks * kBlockBytes / 4));
  for (int64_t b = 0; b < blocks; b++) {
    for (int i = 0; i < 512; i += 64) __builtin_prefetch(codes.block(b) + 2048 + i, 0, 2);
    unpack_block(codes.block(b), codes.block_steps(b), panel + b * kBlockBytes);
  }
  return panel;
}

// Columns p · 32 … of the weight as a panel, likewise.
inline const uint8_t* turned_codes(const WeightView& w, int64_t p) {
  const int64_t down = blocks_of(w.rows);
  alignas(64) uint8_t block[kBlockBytes];
  uint8_t* panel = reinterpret_cast<uint8_t*>(scratch(kLocalPanels, down * kBlockBytes / 4));
  for (int64_t n = 0; n < down; n++) {
    const CodePanel codes = code_panel(w, n), later = code_panel(w, smaller(n + 8, down - 1));
    for (int i = 0; i < 512; i += 64) __builtin_prefetch(later.block(p) + i, 0, 2);
    unpack_block(codes.block(p), codes.block_steps(p), block);
    turn_block(block, panel + n * kBlockBytes);
  }
  return panel;
}

// Up to so many rows of x multiply the codes in place: their sums and the steps fit the registers.
constexpr int64_t kDirectRows = W == 16 ? 8 : 2;

// R rows of words `a` times 2 W columns, whose codes are 32 words apart.
template <class Engine, int R>
void tile_int4(int64_t words, const int32_t* a, CodePanel b, const Tile8& t) {
  vi sums[R][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = vi{} + t.starts[r];
  for (int64_t group = 0; group < words; group += kGroupSide / 4, b.steps += kBlockSide) {
    const Steps s0 = steps_of(b.steps), s1 = steps_of(b.steps + W);
    const int64_t end = smaller(words, group + kGroupSide / 4);
    for (int64_t w = group; w < end; w += 2, a += 2 * R, b.codes += 4 * kBlockSide) {
      __builtin_prefetch(b.codes + 4096, 0, 2);
      __builtin_prefetch(b.codes + 4096 + 64, 0, 2);
      const vi c0 = load_words(b.codes), c1 = load_words(b.codes + 4 * W);
      const auto add = [&](vi q0, vi q1, const int32_t* x) __attribute__((always_inline)) {
        const typename Engine::Words b0 = Engine::words(bytes_of_codes(q0, s0)), b1 = Engine::words(bytes_of_codes(q1, s1));
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) Engine::multiply_add(sums[r][0], sums[r][1], b0, b1, x + r);
      };
      add(c0, c1, a);
      add(c0 >> 4, c1 >> 4, a + R);
    }
  }
  write_tile(sums, t);
}

template <class Engine, int R = kDirectRows>
void multiply_codes(const Gemm& g, const RowPanels& rows, const WeightView& w, int64_t p) {
  if constexpr (R > 1) {
    if (g.M < R) return multiply_codes<Engine, R - 1>(g, rows, w, p);
  }
  const CodePanel panel = code_panel(w, p);
  const float* scales = static_cast<const float*>(w.parts[2]);
  const int64_t j = p * kBlockSide, columns = smaller(kBlockSide, g.N - j);
  for (int64_t at = 0; at < columns; at += 2 * W) {
    const float* bias = g.epilogue.bias ? g.epilogue.bias + j + at : nullptr;
    const Tile8 tile{rows.starts, rows.scales, scales + j + at, bias, g.c + j + at, g.ldc, columns - at};
    tile_int4<Engine, R>(rows.words, rows.data, {panel.codes + at * 4, panel.steps + at}, tile);
  }
  finish(g, 0, g.M, j, columns);
}

template <class Engine>
void codes_transposed(const Gemm& g, const WeightView& w) {
  const RowPanels rows = quantise_rows<Engine>(g.a.data, static_cast<const float*>(w.parts[3]), g.M, g.K);
  for_panels(g, rows.count, [&](int64_t p, int64_t from, int64_t to, bool last) {
    if (g.M <= kDirectRows) return multiply_codes<Engine>(g, rows, w, p);
    const Ahead soon{last ? nullptr : reinterpret_cast<const char*>(code_panel(w, p + 1).codes), 2 * kBlockSide};
    multiply_panel<Engine>(g, rows, from, to, unpacked_panel(w, p), soon, static_cast<const float*>(w.parts[2]), p * kBlockSide);
  });
}

template <class Engine>
void codes_plain(const Gemm& g, const WeightView& w) {
  const RowPanels rows = quantise_rows<Engine>(g.a.data, static_cast<const float*>(w.parts[2]), g.M, g.K);
  for_panels(g, rows.count, [&](int64_t p, int64_t from, int64_t to, bool) {
    multiply_panel<Engine>(g, rows, from, to, turned_codes(w, p), {}, static_cast<const float*>(w.parts[3]), p * kBlockSide);
  });
}

template <class Engine>
void times_int4(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y) {
  if (M == 0) return;
  const int64_t N = transposed ? w.rows : w.columns, K = transposed ? w.columns : w.rows;
  const Gemm g{M, N, K, {x, K, 1}, {nullptr, 0, 0}, epilogue, y, N, false};
  if (transposed) codes_transposed<Engine>(g, w);
  else codes_plain<Engine>(g, w);
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
