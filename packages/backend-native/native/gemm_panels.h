// The layout of packed operands: panels that the micro-kernel reads in order.
// A panel consists of 32-bit words. In float32 a word is one number; in bfloat16 it is two numbers that are neighbours along the
// summed axis. A format (Float32 below, BFloat16 in bfloat16.h) makes and multiplies words. The depth of a panel is a multiple
// of its kGrain words, padded with zeros. A line of a panel is a row of a, or a column of b.
#pragma once
#include "codecs.h"

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

constexpr int64_t kDepth = 1024;        // K is cut into equal blocks of at most this many words
constexpr int64_t kRowsAhead = 32;     // rows prefetched ahead of packing
constexpr int kRowStride = kDepth + 16;   // words between rows of a that are not transposed; no power of two

struct Float32 {
  static constexpr int kPerWord = 1, kGrain = 1;
  // W words of a row from column k on, where the summed axis is the columns; of `count` numbers at the row's end.
  template <class Row>
  static vf row_words(const Row& row, int64_t k) { return row.load(k); }
  template <class Row>
  static vf row_words_part(const Row& row, int64_t k, int64_t count) { return row.load_part(k, count); }
  // The words of `count` columns from k on, where the summed axis is the rows; `second` is the row after `first`, or null at the end.
  template <class Row>
  static vf column_words(const Row& first, const Row* /*second*/, int64_t k, int64_t count) {
    return count == W ? first.load(k) : first.load_part(k, count);
  }
  // The words of 2 W columns.
  template <class Row>
  static void column_words_twice(const Row& first, const Row& /*second*/, int64_t k, float* to) {
    store(to, first.load(k));
    store(to + W, first.load(k + W));
  }
  static vf broadcast(const float* word) { return splat(*word); }
  static vf multiply_add(vf sum, vf a, vf b) { return sum + a * b; }
};

template <class F>
int64_t panel_words(int64_t numbers) {
  return ceil_div(numbers, F::kPerWord * F::kGrain) * F::kGrain;
}

// Transposes a W by W block in registers.
#if defined(__AVX512F__)
inline void transpose(vf (&rows)[W]) {
  __m512 a[W], b[W];
#pragma GCC unroll 8
  for (int i = 0; i < W; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  // b[i + c], i = 0, 4, 8, 12: quarter l holds column 4 l + c of rows i … i + 3.
#pragma GCC unroll 4
  for (int i = 0; i < W; i += 4) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
      b[i + 2 * h] = (__m512)_mm512_unpacklo_pd((__m512d)a[i + h], (__m512d)a[i + 2 + h]);
      b[i + 2 * h + 1] = (__m512)_mm512_unpackhi_pd((__m512d)a[i + h], (__m512d)a[i + 2 + h]);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512 even0 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88), even1 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 odd0 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd), odd1 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    rows[c] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    rows[4 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    rows[8 + c] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    rows[12 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
}
#else
// In log2(W) rounds, each exchanging smaller parts of rows d apart.
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
#endif

// Lines [l, l + count) of a panel, which are the first rows of `from`: word i of row j goes to to[i * width + l + j].
template <class F, class Codec>
void pack_lines(const Codec& from, int64_t count, int64_t depth, int64_t width, int64_t l, float* to) {
  // A vector may write past the panel's row, into the next one, which is written later. Only the last row must not.
  const int64_t words = ceil_div(depth, F::kPerWord), lanes = smaller(W, width - l);
  const bool spill = lanes < W && l == 0;
  for (int64_t w = 0; w < words; w += W) {
    const int64_t steps = smaller(W, words - w), left = depth - w * F::kPerWord;
    const bool whole = left >= W * F::kPerWord;
    const Codec at_word = from.from(0, w * F::kPerWord);
    vf rows[W];
    if (whole && count == W) {
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) rows[i] = F::row_words(at_word.row(i), 0);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) {
        if (i >= count) rows[i] = vf{};
        else if (whole) rows[i] = F::row_words(at_word.row(i), 0);
        else rows[i] = F::row_words_part(at_word.row(i), 0, left);
      }
    }
    transpose(rows);
    float* at = to + w * width + l;
    if (steps == W && (lanes == W || (spill && w + W < words))) {
#pragma GCC unroll 16
      for (int j = 0; j < W; j++) store(at + j * width, rows[j]);
    } else {
      for (int64_t j = 0; j < steps; j++) store_part(at + j * width, rows[j], lanes);
    }
  }
}

// A panel [words, width] whose lines are the first rows of `from`, `depth` columns of them; zero beyond `lines` lines.
template <class F, class Codec>
void pack_row_panel(const Codec& from, int64_t lines, int64_t depth, int64_t width, float* to) {
  for (int64_t l = 0; l < width; l += W)
    pack_lines<F>(from.from(l, 0), larger(0, smaller(W, lines - l)), depth, width, l, to);
}

// A panel [words, width] whose lines are the first columns of `from`, `depth` rows of them; zero beyond `lines` lines.
template <class F, class Codec>
void pack_column_panel(const Codec& from, int64_t lines, int64_t depth, int64_t width, float* to) {
  for (int64_t k = 0; k < depth; k += F::kPerWord, to += width) {
    const auto first = from.row(k), second = from.row(k + 1);
    for (int64_t l = 0; l < width; l += W) {
      const int64_t count = smaller(W, lines - l), lanes = smaller(W, width - l);
      const vf words = count > 0 ? F::column_words(first, k + 1 < depth ? &second : nullptr, l, count) : vf{};
      if (lanes == W) store(to + l, words);
      else store_part(to + l, words, lanes);
    }
  }
}

// One of the strides of a is 1.
template <class F>
void pack_a(const Strided& a, int64_t row, int64_t rows, int64_t k, int64_t depth, float* to) {
  if (a.column_stride == 1) pack_row_panel<F>(Plain<float>{a.data, a.row_stride}.from(row, k), rows, depth, rows, to);
  else pack_column_panel<F>(Plain<float>{a.data, a.column_stride}.from(k, row), rows, depth, rows, to);
}

// The same without transposing: rows of whole vectors of words, `stride` apart. Cheaper if b has few columns.
template <class F>
void copy_a(const Strided& a, int64_t row, int64_t rows, int64_t k, int64_t depth, float* to, int64_t stride) {
  for (int64_t r = 0; r < rows; r++) {
    const PlainRow<float> from{a.data + (row + r) * a.row_stride + k};
    float* at = to + r * stride;
    int64_t n = 0;
    for (; n + W * F::kPerWord <= depth; n += W * F::kPerWord, at += W) store(at, F::row_words(from, n));
    if (n < depth) store(at, F::row_words_part(from, n, depth - n));
  }
}

int64_t panel_width(int64_t columns) { return columns <= W ? W : NR; }

// `panels` panels of NR columns, row by row, since memory is fastest in that order.
template <class F, class Codec>
void pack_whole_panels(const Codec& from, int64_t panels, int64_t depth, float* to) {
  const int64_t panel = panel_words<F>(depth) * NR;
  int64_t k = 0;
  for (; k + F::kPerWord <= depth; k += F::kPerWord, to += NR) {
    const Codec here = from.from(k, 0), ahead = here.from(kRowsAhead, 0);
    const auto first = here.row(0), second = here.row(F::kPerWord - 1);
    for (int64_t p = 0; p < panels; p++) {
      __builtin_prefetch(ahead.row(0).at(p * NR + NR - 1));
      if (F::kPerWord > 1) __builtin_prefetch(ahead.row(F::kPerWord - 1).at(p * NR + NR - 1));
      F::column_words_twice(first, second, p * NR, to + p * panel);
    }
  }
  if (k == depth) return;
  const auto last = from.row(k);
  const decltype(last)* none = nullptr;
  for (int64_t p = 0; p < panels; p++)
    for (int64_t l = 0; l < NR; l += W) store(to + p * panel + l, F::column_words(last, none, p * NR + l, W));
}

// The right operand b [K, N] of a matmul: a matrix, or its transpose.
template <class Codec>
struct RightOperand {
  Codec matrix;
  bool transposed;
  Codec from(int64_t k, int64_t column) const { return transposed ? matrix.from(column, k) : matrix.from(k, column); }
};

// One of the strides of b is 1.
inline RightOperand<Plain<float>> right_operand(const Strided& b) {
  const bool transposed = b.column_stride != 1;
  return {{b.data, transposed ? b.column_stride : b.row_stride}, transposed};
}

// Columns [column, column + columns) of b in panels, each of them zero beyond the last column.
template <class F, class Codec>
void pack_b(const RightOperand<Codec>& b, int64_t column, int64_t columns, int64_t k, int64_t depth, float* to) {
  const int64_t whole = b.transposed ? 0 : columns / NR;
  const int64_t words = panel_words<F>(depth), used = ceil_div(depth, F::kPerWord);
  pack_whole_panels<F>(b.from(k, column), whole, depth, to);
  for (int64_t j = whole * NR; j < columns; j += NR) {
    const auto pack = b.transposed ? pack_row_panel<F, Codec> : pack_column_panel<F, Codec>;
    pack(b.from(k, column + j), smaller(NR, columns - j), depth, panel_width(columns - j), to + j * words);
  }
  for (int64_t j = 0; j < columns && used < words; j += NR) {
    const int64_t width = panel_width(columns - j);
    for (int64_t i = used * width; i < words * width; i += W) store(to + j * words + i, vf{});
  }
}

// The right operand of the blocked matmul: a function that packs part of it, independent of the codec.
struct Packable {
  const void* operand;
  void (*pack)(const void* operand, int64_t column, int64_t columns, int64_t k, int64_t depth, float* to);
  int64_t block;   // of the codec: k is a multiple of it
};

template <class F, class Codec>
Packable packable(const RightOperand<Codec>& b) {
  return {&b,
          [](const void* operand, int64_t column, int64_t columns, int64_t k, int64_t depth, float* to) {
            pack_b<F>(*static_cast<const RightOperand<Codec>*>(operand), column, columns, k, depth, to);
          },
          b.transposed ? Codec::kBlock : 1};
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
