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

constexpr int64_t kDepth = 384;        // K is cut into equal blocks of at most this many words
constexpr int kRowStride = kDepth + 16;   // words between rows of a that are not turned over: no power of two

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
  static vf spread(const float* word) { return splat(*word); }
  static vf multiply_add(vf sum, vf a, vf b) { return sum + a * b; }
};

template <class F>
int64_t panel_words(int64_t numbers) {
  return ceil_div(numbers, F::kPerWord * F::kGrain) * F::kGrain;
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

// The same numbers not turned over: rows of whole vectors of words, `stride` apart. Cheaper where few columns follow.
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

// `Matrix` is Strided, or looks like it with other elements.
template <class F, class Matrix>
void pack_b(const Matrix& b, int64_t column, int64_t columns, int64_t k, int64_t depth, float* to) {
  const int64_t width = panel_width(columns);
  pack_panel<F>(b.data + column * b.column_stride + k * b.row_stride, b.column_stride, b.row_stride, columns, depth,
                width, to);
  for (int64_t i = ceil_div(depth, F::kPerWord) * width; i < panel_words<F>(depth) * width; i += W) store(to + i, vf{});
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
