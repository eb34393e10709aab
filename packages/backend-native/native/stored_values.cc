// The numbers of stored weights: as float32, exactly, and as bfloat16, rounded to nearest with ties to even.
#include "codecs.h"

namespace blip2 {
namespace ISA {
namespace {

static inline uint16_t to_bfloat(float x) {
  uint32_t b;
  __builtin_memcpy(&b, &x, 4);
  const bool nan = (b & 0x7fffffffu) > 0x7f800000u;
  return uint16_t(nan ? (b >> 16) | 0x40 : (b + 0x7fff + ((b >> 16) & 1)) >> 16);
}

// `count` numbers of a row from column k on.
template <class Row>
void dequantise_part(const Row& row, int64_t k, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + W <= count; i += W) store(to + i, row.load(k + i));
  if (i < count) store_part(to + i, row.load_part(k + i, count - i), count - i);
}

}  // namespace

void dequantise(const WeightView& w, float* to) {
  const int64_t D = w.columns;
  with_codec(w, [=](const auto& codec) {
    parallel_chunks(w.rows, larger(1, (1 << 18) / D), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) dequantise_part(codec.row(r), 0, D, to + r * D);
    });
  });
}

void dequantise_rows(const WeightView& w, const int32_t* indices, float* y, int64_t M) {
  const int64_t D = w.columns;
  with_codec(w, [=](const auto& codec) {
    parallel_chunks(M, rows_per_chunk(D), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) dequantise_part(codec.row(indices[i]), 0, D, y + i * D);
    });
  });
}

void column_maxima(const WeightView& w, float* y) {
  constexpr int64_t kPart = 8 * W;   // columns of a task, whose maxima stay in registers
  with_codec(w, [&w, y](const auto& codec) {
    parallel_tasks(ceil_div(w.columns, kPart), [&](int64_t task) {
      const int64_t from = task * kPart, count = smaller(kPart, w.columns - from);
      vi most[kPart / W] = {};   // of positive numbers compared as integers, which also orders infinity and NaN
      for (int64_t r = 0; r < w.rows; r++) {
        const auto row = codec.row(r);
        for (int64_t i = 0; i * W < count; i++) {
          const vi magnitude = (vi)vabs(row.load_part(from + i * W, smaller(W, count - i * W)));
          most[i] = magnitude > most[i] ? magnitude : most[i];
        }
      }
      for (int64_t i = 0; i * W < count; i++) store_part(y + from + i * W, (vf)most[i], smaller(W, count - i * W));
    });
  });
}

void round_to_bfloat16(const WeightView& w, uint16_t* to) {
  constexpr int64_t kPart = 1024;
  const int64_t D = w.columns;
  with_codec(w, [=](const auto& codec) {
    parallel_chunks(w.rows, larger(1, (1 << 18) / D), [&](int64_t begin, int64_t end) {
      float part[kPart];
      for (int64_t r = begin; r < end; r++)
        for (int64_t k = 0; k < D; k += kPart) {
          const int64_t count = smaller(kPart, D - k);
          dequantise_part(codec.row(r), k, count, part);
          for (int64_t j = 0; j < count; j++) to[r * D + k + j] = to_bfloat(part[j]);
        }
    });
  });
}

}  // namespace ISA
}  // namespace blip2
