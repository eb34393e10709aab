// Elements of stored matrices: to float32, exactly, and to bfloat16, to nearest with ties to even.
#include "stored_types.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kChunk = 1 << 18;

static inline uint16_t to_bfloat(float x) {
  uint32_t b;
  __builtin_memcpy(&b, &x, 4);
  const bool nan = (b & 0x7fffffffu) > 0x7f800000u;
  return uint16_t(nan ? (b >> 16) | 0x40 : (b + 0x7fff + ((b >> 16) & 1)) >> 16);
}

template <class T>
void widen_piece(const void* data, float* to, int64_t n) {
  const T* from = static_cast<const T*>(data);
  int64_t i = 0;
  for (; i + W <= n; i += W) store(to + i, load(from + i));
  if (i < n) store_part(to + i, load_part(from + i, n - i), n - i);
}

void widen_piece(StoredType type, const void* from, float* to, int64_t n) {
  switch (type) {
    case StoredType::float32: return void(__builtin_memcpy(to, from, size_t(n) * 4));
    case StoredType::bfloat16: return widen_piece<Bf16>(from, to, n);
    case StoredType::float16: return widen_piece<F16>(from, to, n);
  }
}

const void* element(const StoredMatrix& w, int64_t i) {
  return static_cast<const char*>(w.data) + i * stored_bytes(w.type);
}

}  // namespace

void widen(const StoredMatrix& w, int64_t begin, float* to, int64_t n) {
  parallel_chunks(n, kChunk, [&](int64_t from, int64_t end) {
    widen_piece(w.type, element(w, begin + from), to + from, end - from);
  });
}

void widen_rows(const StoredMatrix& w, const int32_t* indices, float* y, int64_t M) {
  const int64_t D = w.columns;
  parallel_chunks(M, rows_per_chunk(D), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) widen_piece(w.type, element(w, indices[i] * D), y + i * D, D);
  });
}

void round_to_bfloat16(const StoredMatrix& w, int64_t begin, uint16_t* to, int64_t n) {
  parallel_chunks(n, kChunk, [&](int64_t from, int64_t end) {
    constexpr int64_t kPiece = 1024;
    float piece[kPiece];
    for (int64_t i = from; i < end; i += kPiece) {
      const int64_t count = smaller(kPiece, end - i);
      widen_piece(w.type, element(w, begin + i), piece, count);
      for (int64_t j = 0; j < count; j++) to[i + j] = to_bfloat(piece[j]);
    }
  });
}

}  // namespace ISA
}  // namespace blip2
