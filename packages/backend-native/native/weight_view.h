// A frozen weight [rows, columns] in the encoding of its checkpoint, as passed to kernels. codecs.h reads its numbers.
#pragma once
#include <cstdint>

namespace blip2 {

enum class Encoding { float32, bfloat16, float16 };

// The matrix itself is part 0. Encodings with scales or tables have further parts.
constexpr int kMaxParts = 4;

constexpr int part_count(Encoding) { return 1; }

// Bytes per number of an encoding without blocks.
constexpr int64_t number_bytes(Encoding encoding) { return encoding == Encoding::float32 ? 4 : 2; }

// Bytes of a part for this number of rows (for part 0, also the offset of the next row); -1 on overflow.
inline int64_t part_bytes(Encoding encoding, int /*part*/, int64_t rows, int64_t columns) {
  int64_t bytes;
  const bool overflow = __builtin_mul_overflow(rows, columns, &bytes) || __builtin_mul_overflow(bytes, number_bytes(encoding), &bytes);
  return overflow ? -1 : bytes;
}

// The address of a part must be a multiple of this.
constexpr int64_t part_alignment(Encoding encoding, int /*part*/) { return number_bytes(encoding); }

struct WeightView {
  Encoding encoding;
  int64_t rows, columns;
  const void* parts[kMaxParts];
  int64_t first_row = 0;   // the row of the parts at which this view begins

  WeightView slice(int64_t row, int64_t count) const {
    WeightView part = *this;
    part.first_row += row, part.rows = count;
    return part;
  }
};

}  // namespace blip2
