// A frozen weight [rows, columns] in the encoding of its checkpoint, as passed to kernels. codecs.h reads its numbers.
#pragma once
#include <cstdint>

namespace blip2 {

enum class Encoding { float32, bfloat16, float16, int8 };

// The matrix itself is part 0. Encodings with scales or tables have further parts.
constexpr int kMaxParts = 4;

// int8: the bytes q + 128 in blocks of 32 rows and 32 columns, then a scale for each row and a factor for each column (float32).
// A number is q · scale · factor. Blocks are ordered by rows first; within one, [8 groups of columns][32 rows][4 columns]. Rows and
// columns are padded with q = 0. The factors are those of SmoothQuant (Xiao et al. 2023): x is multiplied by them before it is rounded.
constexpr int64_t kBlockSide = 32, kBlockBytes = kBlockSide * kBlockSide;

constexpr int64_t blocks_of(int64_t numbers) { return numbers / kBlockSide + (numbers % kBlockSide != 0); }

constexpr int part_count(Encoding encoding) { return encoding == Encoding::int8 ? 3 : 1; }

// Bytes per number of an encoding without blocks.
constexpr int64_t number_bytes(Encoding encoding) { return encoding == Encoding::float32 ? 4 : 2; }

// a · b · c for sizes of at least 0; -1 on overflow.
inline int64_t product_or_overflow(int64_t a, int64_t b, int64_t c) {
  int64_t bytes;
  const bool overflow = __builtin_mul_overflow(a, b, &bytes) || __builtin_mul_overflow(bytes, c, &bytes);
  return overflow ? -1 : bytes;
}

// Bytes of a part for this number of rows (for part 0 without blocks, also the offset of the next row); -1 on overflow.
inline int64_t part_bytes(Encoding encoding, int part, int64_t rows, int64_t columns) {
  if (encoding != Encoding::int8) return product_or_overflow(rows, columns, number_bytes(encoding));
  if (part == 0) return product_or_overflow(blocks_of(rows), blocks_of(columns), kBlockBytes);
  return product_or_overflow(part == 1 ? rows : columns, 4, 1);
}

// The address of a part must be a multiple of this.
constexpr int64_t part_alignment(Encoding encoding, int part) {
  return encoding != Encoding::int8 ? number_bytes(encoding) : part == 0 ? 64 : 4;
}

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
