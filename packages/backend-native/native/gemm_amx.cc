// Matmul in bfloat16 with AMX's tiles: 16 rows of 16 words each, where a word is two numbers of the summed axis. The panels of b
// are those of gemm_bf16.cc: 16 words of a panel are a tile. Rows of a are not transposed, so that 16 of them are a tile.
// Compiled twice: for the real instructions, and with BLIP2_EMULATED_TILES for the tests. Only the second has been run, since no
// machine with AMX was available. dispatch.cc therefore calls amx_agrees() before it offers this level.
#include "bfloat16.h"
#include "gemm_stored.h"
#if defined(BLIP2_EMULATED_TILES)
#include "amx_emulated.h"
#endif

namespace blip2 {
namespace ISA {
namespace {

constexpr int kSide = 16;   // rows, and words per row, of a tile

struct TileWords : BFloat16 {
  static constexpr int kGrain = kSide;
};

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "LDTILECFG reads 64 bytes");

// 16 by 16 numbers of c during summation: in c itself, or in a buffer if c has fewer rows or columns.
struct Corner {
  float *c, *at;
  int64_t ldc, stride, rows, columns;   // stride in bytes, of `at`
  const float* start;                   // initial values, rows start_stride bytes apart; null for 0
  int64_t start_stride;
  float beside[kSide * kSide];

  void open(float* to, int64_t to_ldc, int64_t to_rows, int64_t to_columns, const float* bias, bool accumulate) {
    c = at = to;
    ldc = to_ldc;
    rows = smaller(kSide, to_rows);
    columns = smaller(kSide, to_columns);
    stride = ldc * 4;
    // A stride of 0 reads the same row 16 times.
    start = accumulate ? c : bias;
    start_stride = accumulate ? stride : 0;
    if (rows == kSide && columns == kSide) return;
    at = beside;
    stride = kSide * 4;
    if (!start) return;
    for (int64_t r = 0; r < kSide; r++)
      store(beside + r * kSide, r < rows ? load_part(accumulate ? c + r * ldc : bias, columns) : vf{});
    start = beside;
    start_stride = stride;
  }
  void close() const {
    if (at != beside) return;
    for (int64_t r = 0; r < rows; r++) store_part(c + r * ldc, load(beside + r * kSide), columns);
  }
};

// Tiles 0 … 3 are c, 4 and 5 rows of a, 6 and 7 columns of b; their numbers must be literals.
#define BEGIN(tile, corner)                                                           \
  do {                                                                                \
    if ((corner).start) _tile_loadd(tile, (corner).start, (corner).start_stride);     \
    else _tile_zero(tile);                                                            \
  } while (0)

// g++ does not know that a tile load reads memory, so this completes earlier writes.
inline void finish_writes() { asm volatile("" ::: "memory"); }

// c [16 · DOWN, 16 · ACROSS] from rows of a a_stride words apart and a panel of b of that width.
template <int DOWN, int ACROSS>
void multiply_corners(int64_t words, const float* a, int64_t a_stride, const float* b, Corner (&corners)[2][2]) {
  constexpr int64_t width = ACROSS * kSide;
  finish_writes();
  BEGIN(0, corners[0][0]);
  if constexpr (ACROSS > 1) BEGIN(1, corners[0][1]);
  if constexpr (DOWN > 1) BEGIN(2, corners[1][0]);
  if constexpr (DOWN > 1 && ACROSS > 1) BEGIN(3, corners[1][1]);
  for (int64_t w = 0; w < words; w += kSide) {
    _tile_loadd(4, a + w, a_stride * 4);
    _tile_loadd(6, b + w * width, width * 4);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (ACROSS > 1) {
      _tile_loadd(7, b + w * width + kSide, width * 4);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (DOWN > 1) {
      _tile_loadd(5, a + kSide * a_stride + w, a_stride * 4);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (ACROSS > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, corners[0][0].at, corners[0][0].stride);
  if constexpr (ACROSS > 1) _tile_stored(1, corners[0][1].at, corners[0][1].stride);
  if constexpr (DOWN > 1) _tile_stored(2, corners[1][0].at, corners[1][0].stride);
  if constexpr (DOWN > 1 && ACROSS > 1) _tile_stored(3, corners[1][1].at, corners[1][1].stride);
}

struct Tiles {
  using Format = TileWords;
  static constexpr int64_t kPanelRows = 2 * kSide;
  static constexpr bool kStrips = false;
  // No power of two: otherwise the 16 rows of a tile would share few sets of the first-level cache.
  static int64_t row_words(int64_t depth) { return depth + kSide; }

  static void pack(const Strided& a, int64_t row, int64_t rows, int64_t k, int64_t depth, float* to) {
    const int64_t stride = row_words(panel_words<TileWords>(depth));
    if (a.column_stride == 1) return copy_a<TileWords>(a, row, rows, k, depth, to, stride);
    // Neighbouring words belong to different rows, so blocks of 16 by 16 are transposed.
    const int64_t words = ceil_div(depth, 2);
    for (int64_t i = 0; i < rows; i += kSide)
      for (int64_t w = 0; w < words; w += kSide) {
        const int64_t count = smaller(kSide, rows - i), left = smaller(2 * kSide, depth - 2 * w);
        float block[kSide * kSide];
        pack_a<TileWords>(a, row + i, count, k + 2 * w, left, block);   // [words, count]
        vf lines[kSide];
        for (int64_t j = 0; j < kSide; j++) lines[j] = 2 * j < left ? load_part(block + j * count, count) : vf{};
        transpose(lines);
        for (int64_t r = 0; r < count; r++) store(to + (i + r) * stride + w, lines[r]);
      }
  }

  static void multiply(int64_t words, const float* a, const float* b, int64_t b_stride, int64_t row, int64_t row_end,
                       int64_t all_columns, float* c, int64_t ldc, const float* bias, bool accumulate) {
    const TileConfig config;
    _tile_loadconfig(&config);
    const int64_t stride = row_words(words);
    for (int64_t i = row; i < row_end; i += kPanelRows)
      for (int64_t j = 0; j < all_columns; j += NR) {
        const int64_t rows = row_end - i, columns = all_columns - j;
        const bool down = rows > kSide, across = columns > kSide;
        Corner corners[2][2];
        for (int64_t y = 0; y <= down; y++)
          for (int64_t x = 0; x <= across; x++)
            corners[y][x].open(c + (i + y * kSide) * ldc + j + x * kSide, ldc, rows - y * kSide, columns - x * kSide,
                               bias ? bias + j + x * kSide : nullptr, accumulate);
        const auto kernel = down ? across ? multiply_corners<2, 2> : multiply_corners<2, 1>
                                 : across ? multiply_corners<1, 2> : multiply_corners<1, 1>;
        kernel(words, a + i * stride, stride, b + j * b_stride, corners);
        for (int64_t y = 0; y <= down; y++)
          for (int64_t x = 0; x <= across; x++) corners[y][x].close();
      }
    _tile_release();
  }
};

void gemm(const Gemm& g) {
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) return fill_empty(g);
  const auto b = right_operand(g.b);
  gemm_blocked<Tiles>(g, packable<TileWords>(b));
}

// Uses small whole numbers that are exact in bfloat16, with sums exact in float32, so that any correct matmul gives exactly these results.
bool agrees(int64_t M, int64_t N, int64_t K) {
  float* a = scratch(kMask, M * K + K * N + N + M * N);
  float *b = a + M * K, *bias = b + K * N, *c = bias + N;
  const auto number = [](int64_t i) { return float(i * 2654435761 % 1031 % 17 - 8); };
  for (int64_t i = 0; i < M * K + K * N + N; i++) a[i] = number(i);
  gemm({M, N, K, {a, K, 1}, {b, 1, K}, bias, c, N, false});
  for (int64_t i = 0; i < M; i++)
    for (int64_t j = 0; j < N; j++) {
      float sum = bias[j];
      for (int64_t k = 0; k < K; k++) sum += a[i * K + k] * b[j * K + k];
      if (c[i * N + j] != sum) return false;
    }
  return true;
}

}  // namespace

extern const MatmulKernels bfloat16_matmul;
const MatmulKernels bfloat16_matmul = {gemm, packed_floats<TileWords>, pack_all<TileWords>, gemm_stored<Tiles>};

// Whether the tiles of this machine give the same results as scalar arithmetic.
bool amx_agrees() { return agrees(37, 50, 70) && agrees(32, 32, 32) && agrees(3, 17, 801) && agrees(65, 1, 1); }

}  // namespace ISA
}  // namespace blip2
