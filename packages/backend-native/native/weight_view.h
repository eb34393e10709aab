// A frozen weight [rows, columns] in the encoding of its checkpoint, as passed to kernels. codecs.h reads its numbers.
#pragma once
#include <cstdint>

namespace blip2 {

enum class Encoding { float32, bfloat16, float16, int8, int4, bnb8, bnb4 };

// The matrix itself is part 0. Encodings with scales or tables have further parts.
constexpr int kMaxParts = 4;

// int8: the bytes q + 128 in blocks of 32 rows and 32 columns, then a scale for each row and a factor for each column (float32).
// A number is q · scale · factor. Blocks are ordered by rows first; within one, [8 groups of columns][32 rows][4 columns]. Rows and
// columns are padded with q = 0. The factors are those of SmoothQuant (Xiao et al. 2023): x is multiplied by them before it is rounded.
constexpr int64_t kBlockSide = 32, kBlockBytes = kBlockSide * kBlockSide;

// int4: codes of 4 bits for 32 rows and 64 columns in 1 KB, then a step (uint8, 1 … 16) for each row and 64 columns, a scale for each row and
// a factor for each column. A number is (code - 8) · step · scale · factor, so code and step make the byte of int8. Order of the codes:
// [8 groups of columns][32 rows][4 bytes], byte i has column i in its low and column 4 + i in its high half; of the steps: [32 rows].
// Rows and columns are padded with code 8.
constexpr int64_t kGroupSide = 64, kGroupBytes = kBlockSide * kGroupSide / 2;

// bnb8 is int8 of bitsandbytes: int8 row by row, and for each row the largest magnitude. bnb4 is its nf4 and fp4: codes of 4 bits row by row, the
// first in the high half of a byte, the largest magnitude of each 64 numbers, and a table of 16 numbers.
constexpr int64_t kAbsmaxNumbers = 64;

constexpr int64_t parts_of(int64_t numbers, int64_t part) { return numbers / part + (numbers % part != 0); }
constexpr int64_t blocks_of(int64_t numbers) { return parts_of(numbers, kBlockSide); }
constexpr int64_t groups_of(int64_t columns) { return parts_of(columns, kGroupSide); }

constexpr int part_count(Encoding encoding) {
  switch (encoding) {
    case Encoding::int8: return 3;
    case Encoding::int4: return 4;
    case Encoding::bnb8: return 2;
    case Encoding::bnb4: return 3;
    default: return 1;
  }
}

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
  const int64_t numbers = product_or_overflow(rows, columns, 1);
  switch (encoding) {
    case Encoding::int8:
      if (part == 0) return product_or_overflow(blocks_of(rows), blocks_of(columns), kBlockBytes);
      return product_or_overflow(part == 1 ? rows : columns, 4, 1);
    case Encoding::int4:
      if (part <= 1) return product_or_overflow(blocks_of(rows), groups_of(columns), part == 0 ? kGroupBytes : kBlockSide);
      return product_or_overflow(part == 2 ? rows : columns, 4, 1);
    case Encoding::bnb8: return part == 0 ? numbers : product_or_overflow(rows, 4, 1);
    case Encoding::bnb4:
      if (part == 2 || numbers < 0) return part == 2 ? 64 : -1;
      return part == 0 ? parts_of(numbers, 2) : product_or_overflow(parts_of(numbers, kAbsmaxNumbers), 4, 1);
    default: return product_or_overflow(rows, columns, number_bytes(encoding));
  }
}

// The address of a part must be a multiple of this.
constexpr int64_t part_alignment(Encoding encoding, int part) {
  switch (encoding) {
    case Encoding::int8: return part == 0 ? 64 : 4;
    case Encoding::int4: return part == 0 ? 64 : part == 1 ? 1 : 4;
    case Encoding::bnb8:
    case Encoding::bnb4: return part == 0 ? 1 : 4;
    default: return number_bytes(encoding);
  }
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
