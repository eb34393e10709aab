// How the matrix product lays out its operands: both are copied into panels that the micro-kernel reads in order.
// A panel consists of 32-bit words. In float32 a word is one number; in bfloat16 it is two numbers that follow each other
// along the summed axis. A format (Float32 below, BFloat16 in bfloat16.h) says how words are made and multiplied, and of how
// many words (kGrain) the depth of a panel must be a multiple: zeros fill it up.
#pragma once
#include "stored_types.h"

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
constexpr int64_t kRowsAhead = 32;     // how far in front the cache is asked to read where packing goes down the rows
constexpr int kRowStride = kDepth + 16;   // words between rows of a that are not transposed: no power of two

struct Float32 {
  static constexpr int kPerWord = 1, kGrain = 1;
  // W words of numbers that follow each other along the summed axis; `count` numbers are left there.
  template <class T>
  static vf along(const T* p) { return load(p); }
  template <class T>
  static vf along_part(const T* p, int64_t count) { return load_part(p, count); }
  // W words of `count` neighbouring lines; `second` is what follows `first` along the summed axis, or null at its end.
  template <class T>
  static vf across(const T* first, const T* /*second*/, int64_t count) {
    return count == W ? load(first) : load_part(first, count);
  }
  // The same for 2 W whole lines.
  template <class T>
  static void across_two(const T* first, const T* /*second*/, float* to) {
    store(to, load(first));
    store(to + W, load(first + W));
  }
  static vf broadcast(const float* word) { return splat(*word); }
  static vf multiply_add(vf sum, vf a, vf b) { return sum + a * b; }
};

template <class F>
int64_t panel_words(int64_t numbers) {
  return ceil_div(numbers, F::kPerWord * F::kGrain) * F::kGrain;
}

// Turns a W by W block over in registers.
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
// By exchanging ever smaller halves between rows d apart: log2(W) rounds.
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

// Lines [l, l + count) of a panel whose lines are contiguous: word w of line l + i goes to to[w * width + l + i].
template <class F, class T>
void pack_lines(const T* from, int64_t line_stride, int64_t count, int64_t depth, int64_t width, int64_t l,
                float* to) {
  // A vector may reach past the panel's row: into the next row, which is written later. Only the last row must not.
  const int64_t words = ceil_div(depth, F::kPerWord), lanes = smaller(W, width - l);
  const bool spill = lanes < W && l == 0;
  for (int64_t w = 0; w < words; w += W) {
    const int64_t steps = smaller(W, words - w), left = depth - w * F::kPerWord;
    const bool whole = left >= W * F::kPerWord;
    const T* at_line = from + w * F::kPerWord;
    vf rows[W];
    if (whole && count == W) {
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) rows[i] = F::along(at_line + i * line_stride);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) {
        if (i >= count) rows[i] = vf{};
        else if (whole) rows[i] = F::along(at_line + i * line_stride);
        else rows[i] = F::along_part(at_line + i * line_stride, left);
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

// `lines` lines of `depth` numbers (line l, position k at from[l * line_stride + k * depth_stride]) → to [words, width],
// zero beyond `lines`.
template <class F, class T>
void pack_panel(const T* from, int64_t line_stride, int64_t depth_stride, int64_t lines, int64_t depth,
                int64_t width, float* to) {
  if (depth_stride == 1) {
    for (int64_t l = 0; l < width; l += W)
      pack_lines<F>(from + l * line_stride, line_stride, larger(0, smaller(W, lines - l)), depth, width, l, to);
    return;
  }
  for (int64_t k = 0; k < depth; k += F::kPerWord, to += width) {
    const T* first = from + k * depth_stride;
    const T* second = k + 1 < depth ? first + depth_stride : nullptr;
    if (line_stride == 1) {
      for (int64_t l = 0; l < width; l += W) {
        const int64_t count = smaller(W, lines - l), lanes = smaller(W, width - l);
        const vf words = count > 0 ? F::across(first + l, second ? second + l : nullptr, count) : vf{};
        if (lanes == W) store(to + l, words);
        else store_part(to + l, words, lanes);
      }
    } else {
      for (int64_t l = 0; l < width; l++) {
        const int64_t at = l * line_stride;
        store_part(to + l, l < lines ? F::across(first + at, second ? second + at : nullptr, 1) : vf{}, 1);
      }
    }
  }
}

template <class F>
void pack_a(const Strided& a, int64_t row, int64_t rows, int64_t k, int64_t depth, float* to) {
  pack_panel<F>(a.data + row * a.row_stride + k * a.column_stride, a.row_stride, a.column_stride, rows, depth, rows,
                to);
}

// The same numbers not transposed: rows of whole vectors of words, `stride` apart. Cheaper where few columns follow.
template <class F>
void copy_a(const Strided& a, int64_t row, int64_t rows, int64_t k, int64_t depth, float* to, int64_t stride) {
  for (int64_t r = 0; r < rows; r++) {
    const float* from = a.data + (row + r) * a.row_stride + k;
    float* at = to + r * stride;
    int64_t n = 0;
    for (; n + W * F::kPerWord <= depth; n += W * F::kPerWord, at += W) store(at, F::along(from + n));
    if (n < depth) store(at, F::along_part(from + n, depth - n));
  }
}

int64_t panel_width(int64_t columns) { return columns <= W ? W : NR; }

// Rows of whole panels that lie as the matrix has them: row by row, as memory likes it. Panels of `depth` numbers.
template <class F, class T>
void pack_whole_panels(const T* from, int64_t row_stride, int64_t panels, int64_t depth, float* to) {
  const int64_t panel = panel_words<F>(depth) * NR;
  int64_t k = 0;
  for (; k + F::kPerWord <= depth; k += F::kPerWord, to += NR) {
    const T *first = from + k * row_stride, *second = first + (F::kPerWord - 1) * row_stride;
    for (int64_t p = 0; p < panels; p++) {
      __builtin_prefetch(first + kRowsAhead * row_stride + p * NR + NR - 1);
      if (F::kPerWord > 1) __builtin_prefetch(second + kRowsAhead * row_stride + p * NR + NR - 1);
      F::across_two(first + p * NR, second + p * NR, to + p * panel);
    }
  }
  if (k < depth)
    for (int64_t p = 0; p < panels; p++)
      for (int64_t l = 0; l < NR; l += W) {
        const T *last = from + k * row_stride + p * NR + l, *none = nullptr;
        store(to + p * panel + l, F::across(last, none, W));
      }
}

// Columns [column, column + columns) in panels, each of them zero beyond the last column. `Matrix` is Strided, or looks like it
// with other elements.
template <class F, class Matrix>
void pack_b(const Matrix& b, int64_t column, int64_t columns, int64_t k, int64_t depth, float* to) {
  const auto* from = b.data + column * b.column_stride + k * b.row_stride;
  const int64_t whole = b.column_stride == 1 ? columns / NR : 0;
  const int64_t words = panel_words<F>(depth), used = ceil_div(depth, F::kPerWord);
  pack_whole_panels<F>(from, b.row_stride, whole, depth, to);
  for (int64_t j = whole * NR; j < columns; j += NR)
    pack_panel<F>(from + j * b.column_stride, b.column_stride, b.row_stride, smaller(NR, columns - j), depth,
                  panel_width(columns - j), to + j * words);
  for (int64_t j = 0; j < columns && used < words; j += NR) {
    const int64_t width = panel_width(columns - j);
    for (int64_t i = used * width; i < words * width; i += W) store(to + j * words + i, vf{});
  }
}

// A matrix b that is packed block by block, whatever its elements are: what the blocked product needs to know of it.
struct Panels {
  const void* matrix;
  void (*pack)(const void* matrix, int64_t column, int64_t columns, int64_t k, int64_t depth, float* to);
};

template <class F, class Matrix>
Panels panels_of(const Matrix& b) {
  return {&b, [](const void* matrix, int64_t column, int64_t columns, int64_t k, int64_t depth, float* to) {
            pack_b<F>(*static_cast<const Matrix*>(matrix), column, columns, k, depth, to);
          }};
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
