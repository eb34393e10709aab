// Strided copies (slice, concat, transpose, tile) and element by element arithmetic with broadcasting.
#include "simd.h"

namespace blip2 {
namespace ISA {
namespace {

// Position of outer index `outer` (all axes but the last) under some strides.
int64_t offset_of(int64_t outer, int rank, const int64_t* shape, const int64_t* strides) {
  int64_t at = 0;
  for (int axis = rank - 2; axis >= 0; axis--) {
    at += outer % shape[axis] * strides[axis];
    outer /= shape[axis];
  }
  return at;
}

template <class F>
void binary_rows(const BinaryCall& c, const F& f) {
  int64_t outer = 1;
  for (int axis = 0; axis < c.rank - 1; axis++) outer *= c.shape[axis];
  const int64_t n = c.shape[c.rank - 1];
  const int64_t sa = c.a_strides[c.rank - 1], sb = c.b_strides[c.rank - 1];
  // A task is a part of one long row, or several short rows.
  const int64_t piece = 16384, pieces = larger(1, ceil_div(n, piece));
  parallel_chunks(outer * pieces, pieces > 1 ? 1 : larger(1, piece / larger(1, n)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      const int64_t row = t / pieces, from = t % pieces * piece, count = smaller(n, from + piece) - from;
      const float* a = c.a + offset_of(row, c.rank, c.shape, c.a_strides) + from * sa;
      const float* b = c.b + offset_of(row, c.rank, c.shape, c.b_strides) + from * sb;
      float* y = c.y + row * n + from;
      if (sa == 1 && sb == 1) {
        for (int64_t i = 0; i < count; i++) y[i] = f(a[i], b[i]);
      } else if (sa == 1 && sb == 0) {
        const float only = *b;
        for (int64_t i = 0; i < count; i++) y[i] = f(a[i], only);
      } else if (sa == 0 && sb == 1) {
        const float only = *a;
        for (int64_t i = 0; i < count; i++) y[i] = f(only, b[i]);
      } else {
        for (int64_t i = 0; i < count; i++) y[i] = f(a[i * sa], b[i * sb]);
      }
    }
  });
}

}  // namespace

void binary(const BinaryCall& c) {
  switch (c.op) {
    case Binary::add: return binary_rows(c, [](float a, float b) { return a + b; });
    case Binary::sub: return binary_rows(c, [](float a, float b) { return a - b; });
    case Binary::mul: return binary_rows(c, [](float a, float b) { return a * b; });
    case Binary::div: return binary_rows(c, [](float a, float b) { return a / b; });
    case Binary::maximum: return binary_rows(c, [](float a, float b) { return a != a || a > b ? a : b; });
    case Binary::minimum: return binary_rows(c, [](float a, float b) { return a != a || a < b ? a : b; });
  }
}

void copy(const CopyCall& c) {
  int64_t outer = 1;
  for (int axis = 0; axis < c.rank - 1; axis++) outer *= c.shape[axis];
  const int64_t n = c.shape[c.rank - 1], from = c.from_strides[c.rank - 1], to = c.to_strides[c.rank - 1];
  parallel_chunks(outer, larger(1, 16384 / larger(1, n)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const uint32_t* source = c.from + offset_of(row, c.rank, c.shape, c.from_strides);
      uint32_t* target = c.to + offset_of(row, c.rank, c.shape, c.to_strides);
      if (from == 1 && to == 1) __builtin_memcpy(target, source, size_t(n) * 4);
      else
        for (int64_t i = 0; i < n; i++) target[i * to] = source[i * from];
    }
  });
}

}  // namespace ISA
}  // namespace blip2
