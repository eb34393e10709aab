// A frozen matrix that stays as its file stores it: row-major, in a mapping of the file or in memory of our own.
#pragma once
#include <cstdint>

namespace blip2 {

enum class StoredType { float32, bfloat16, float16 };

constexpr int64_t stored_bytes(StoredType type) { return type == StoredType::float32 ? 4 : 2; }

struct StoredMatrix {
  const void* data;
  StoredType type;
  int64_t rows, columns;
};

}  // namespace blip2
