// The tile instructions of AMX-bf16 and AMX-int8 in plain C++, under the names that immintrin.h gives them, so that the indexing and the
// blocking of gemm_amx.cc and gemm_amx_int8.cc can be tested on a processor without AMX. Operands that the real instructions reject abort the program.
// Source: Intel's Software Developer's Manual, chapter on AMX, and the pages of the instructions named below.
#pragma once
#include <cstdint>
#include <cstdlib>

// Some compilers have macros for these.
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbsud

namespace blip2 {
namespace ISA {
namespace {

constexpr int kTiles = 8, kTileWords = 256;

struct EmulatedTiles {
  bool configured = false;
  int rows[kTiles], row_bytes[kTiles];
  float data[kTiles][kTileWords];
};
thread_local EmulatedTiles emulated;

inline void require_tile(bool holds) {
  if (!holds) std::abort();
}

// LDTILECFG: byte 0 the palette, from byte 16 the bytes per row (16 bits each), from byte 48 the rows. All tiles become 0.
inline void _tile_loadconfig(const void* config) {
  const unsigned char* bytes = static_cast<const unsigned char*>(config);
  require_tile(bytes[0] == 1);
  emulated = EmulatedTiles{};
  for (int t = 0; t < kTiles; t++) {
    emulated.row_bytes[t] = bytes[16 + 2 * t] + 256 * bytes[17 + 2 * t];
    emulated.rows[t] = bytes[48 + t];
    require_tile(emulated.rows[t] <= 16 && emulated.row_bytes[t] <= 64 && emulated.row_bytes[t] % 4 == 0);
  }
  emulated.configured = true;
}

inline void _tile_release() { emulated.configured = false; }   // TILERELEASE

inline void require_tile(int tile) { require_tile(emulated.configured && emulated.rows[tile] > 0); }

inline void _tile_zero(int tile) {   // TILEZERO
  require_tile(tile);
  __builtin_memset(emulated.data[tile], 0, sizeof emulated.data[tile]);
}

inline void _tile_loadd(int tile, const void* base, int64_t stride) {   // TILELOADD: zeros past the end of a row
  _tile_zero(tile);
  for (int r = 0; r < emulated.rows[tile]; r++)
    __builtin_memcpy(emulated.data[tile] + 16 * r, static_cast<const char*>(base) + r * stride,
                     size_t(emulated.row_bytes[tile]));
}

inline void _tile_stored(int tile, void* base, int64_t stride) {   // TILESTORED
  require_tile(tile);
  for (int r = 0; r < emulated.rows[tile]; r++)
    __builtin_memcpy(static_cast<char*>(base) + r * stride, emulated.data[tile] + 16 * r,
                     size_t(emulated.row_bytes[tile]));
}

inline float emulated_number(float word, int half) {
  uint32_t bits;
  __builtin_memcpy(&bits, &word, sizeof bits);
  bits = half ? bits & 0xffff0000 : bits << 16;
  float number;
  __builtin_memcpy(&number, &bits, sizeof number);
  return number;
}

// How many rows, words and columns a product of tiles has.
struct EmulatedSizes {
  int rows, words, columns;
};

inline EmulatedSizes emulated_sizes(int c, int a, int b) {
  require_tile(c), require_tile(a), require_tile(b);
  const EmulatedSizes s{emulated.rows[a], emulated.row_bytes[a] / 4, emulated.row_bytes[c] / 4};
  require_tile(emulated.rows[c] == s.rows && emulated.rows[b] == s.words && emulated.row_bytes[b] == emulated.row_bytes[c]);
  // Checks all indices once: doing so for every number takes minutes with the sanitizers.
  require_tile(s.rows <= 16 && s.words <= 16 && s.columns <= 16);
  return s;
}

// TDPBSUD: c [rows of a, 16] += a · b in 32 bits, of four signed bytes in a word of a and four unsigned ones in a word of b.
inline void _tile_dpbsud(int c, int a, int b) {
  const auto [rows, words, columns] = emulated_sizes(c, a, b);
  char* to = reinterpret_cast<char*>(emulated.data[c]);
  const int8_t* left = reinterpret_cast<const int8_t*>(emulated.data[a]);
  const uint8_t* right = reinterpret_cast<const uint8_t*>(emulated.data[b]);
  for (int m = 0; m < rows; m++)
    for (int n = 0; n < columns; n++) {
      uint32_t sum;
      __builtin_memcpy(&sum, to + 4 * (16 * m + n), 4);
      for (int k = 0; k < 4 * words; k++) sum += uint32_t(left[64 * m + k] * right[64 * (k / 4) + 4 * n + k % 4]);
      __builtin_memcpy(to + 4 * (16 * m + n), &sum, 4);
    }
}

// TDPBF16PS: c [rows of a, 16] += a · b, where a word of a row of a meets the row of b with the word's number.
inline void _tile_dpbf16ps(int c, int a, int b) {
  const auto [rows, words, columns] = emulated_sizes(c, a, b);
  float* to = emulated.data[c];
  const float *left = emulated.data[a], *right = emulated.data[b];
  for (int m = 0; m < rows; m++)
    for (int k = 0; k < words; k++)
      for (int n = 0; n < columns; n++)
        for (int half = 0; half < 2; half++)
          to[16 * m + n] += emulated_number(left[16 * m + k], half) * emulated_number(right[16 * k + n], half);
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
