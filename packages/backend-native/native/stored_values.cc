// Elements of stored matrices: to float32, exactly, and to bfloat16, to nearest with ties to even.
#include "simd.h"
#include "stored_matrix.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kChunk = 1 << 18;

static inline uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}
static inline float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

// Plain integer arithmetic, so that compilers make vectors of it on every processor.
static inline float from_half(uint16_t half) {
  constexpr uint32_t kInfinity = 0x7c00u << 13;
  const uint32_t sign = uint32_t(half & 0x8000) << 16, magnitude = uint32_t(half & 0x7fff) << 13;
  const uint32_t normal = magnitude + (112u << 23);
  // A subnormal half is a multiple of 2^-24: as the fraction of a number of exponent -14, less that number.
  const uint32_t subnormal = bits_of(float_of(magnitude + (113u << 23)) - float_of(113u << 23));
  const uint32_t special = magnitude + (224u << 23);
  const uint32_t bits = magnitude >= kInfinity ? special : magnitude < (1u << 23) ? subnormal : normal;
  return float_of(sign | bits);
}
static inline float from_bfloat(uint16_t x) { return float_of(uint32_t(x) << 16); }

static inline uint16_t to_bfloat(float x) {
  const uint32_t b = bits_of(x);
  const bool nan = (b & 0x7fffffffu) > 0x7f800000u;
  return uint16_t(nan ? (b >> 16) | 0x40 : (b + 0x7fff + ((b >> 16) & 1)) >> 16);
}

void widen_piece(StoredType type, const void* from, float* to, int64_t n) {
  const uint16_t* half = static_cast<const uint16_t*>(from);
  if (type == StoredType::float32)
    __builtin_memcpy(to, from, size_t(n) * 4);
  else if (type == StoredType::bfloat16)
    for (int64_t i = 0; i < n; i++) to[i] = from_bfloat(half[i]);
  else
    for (int64_t i = 0; i < n; i++) to[i] = from_half(half[i]);
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
