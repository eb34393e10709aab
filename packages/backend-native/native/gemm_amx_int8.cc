// Matmul with an int8 or int4 weight by AMX's tiles: 16 rows of x times 16 columns of the weight, 64 numbers of the summed axis at a time. Blocks of
// the weight (weight_view.h) are read as they are: 16 words of a panel, 128 bytes apart, are a tile. Rows of x are not interleaved. Few rows
// are left to VNNI, which is as fast there. Compiled twice, as gemm_amx.cc is, and offered only if it agrees with VNNI.
#include "gemm_int4.h"
#if defined(BLIP2_EMULATED_TILES)
#include "amx_emulated.h"
#endif

namespace blip2 {
namespace avx512vnni {
extern const Int8Matmul int8_matmul;
}
namespace ISA {
namespace {

constexpr int kSide = 16;   // rows, and words per row, of a tile
constexpr int64_t kFewRows = 8;

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "LDTILECFG reads 64 bytes");

// Rows of x, `stride` words apart; there is room for whole tiles, and words beyond `words` are 0.
struct QuantisedRows {
  int64_t M, words, stride;
  int32_t* data;
  float* scales;      // [M]
  int32_t* starts;    // [M]
};

void quantise_row(const float* x, const float* by, int64_t K, const QuantisedRows& to, int64_t i) {
  const RowScale s = scale_of(x, by, K);
  vi sum{};
  for (int64_t w = 0; w < to.stride; w += W) {
    const vi q = quantised_words(x, by, 4 * w, K, s.inverse);
    for (int64_t byte = 0; byte < 4; byte++) sum += (vi)((vu)q << uint32_t(24 - 8 * byte)) >> 24;
    store(reinterpret_cast<float*>(to.data + i * to.stride + w), (vf)q);
  }
  int32_t total = 0;
  for (int l = 0; l < W; l++) total += sum[l];
  to.scales[i] = s.scale, to.starts[i] = -128 * total;
}

QuantisedRows quantise_plain_rows(const float* x, const float* by, int64_t M, int64_t K) {
  const int64_t words = blocks_of(K) * (kBlockSide / 4), stride = ceil_div(words, kSide) * kSide;
  const int64_t rows = ceil_div(M, 2 * kSide) * 2 * kSide;
  int32_t* room = reinterpret_cast<int32_t*>(scratch(kPackedPanels, rows * stride + 2 * M));
  const QuantisedRows q{M, words, stride, room, reinterpret_cast<float*>(room + rows * stride), room + rows * stride + M};
  parallel_chunks(M, rows_per_chunk(K), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) quantise_row(x + i * K, by, K, q, i);
  });
  return q;
}

// g++ does not know that a tile load reads memory, so this completes earlier writes.
inline void finish_writes() { asm volatile("" ::: "memory"); }

// sums [32, 32] = two tiles of rows times a panel of 32 columns. `tail` is the last half tile of the panel with zeros behind it.
void multiply_tiles(const int32_t* rows, int64_t stride, int64_t words, const uint8_t* panel, const uint8_t* tail, int32_t* sums) {
  finish_writes();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t w = 0; w < words; w += kSide) {
    const uint8_t* b = w + kSide <= words ? panel + w * (4 * kBlockSide) : tail;
    _tile_loadd(4, rows + w, stride * 4);
    _tile_loadd(5, rows + kSide * stride + w, stride * 4);
    _tile_loadd(6, b, 4 * kBlockSide);
    _tile_loadd(7, b + 4 * kSide, 4 * kBlockSide);
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, sums, 4 * kBlockSide);
  _tile_stored(1, sums + kSide, 4 * kBlockSide);
  _tile_stored(2, sums + kSide * kBlockSide, 4 * kBlockSide);
  _tile_stored(3, sums + kSide * kBlockSide + kSide, 4 * kBlockSide);
}

// Rows [from, to) of the result, columns j … of a panel. `from` is a multiple of 32.
void multiply_rows(const Gemm& g, const QuantisedRows& x, int64_t from, int64_t to, const uint8_t* panel, const float* column_scales,
                   int64_t j) {
  const TileConfig config;
  _tile_loadconfig(&config);
  uint8_t tail[kSide * 4 * kBlockSide] = {};
  const int64_t whole = x.words / kSide * kSide, left = x.words - whole, columns = smaller(kBlockSide, g.N - j);
  __builtin_memcpy(tail, panel + whole * (4 * kBlockSide), size_t(left * (4 * kBlockSide)));
  for (int64_t i = from; i < to; i += 2 * kSide) {
    int32_t sums[2 * kSide * kBlockSide];
    multiply_tiles(x.data + i * x.stride, x.stride, x.words, panel, tail, sums);
    finish_writes();
    const int64_t rows = smaller(2 * kSide, to - i);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t at = 0; at < columns; at += W) {
        const vi sum = (vi)load(reinterpret_cast<const float*>(sums + r * kBlockSide + at)) + x.starts[i + r];
        const int64_t count = smaller(W, columns - at);
        const float* bias = g.epilogue.bias ? g.epilogue.bias + j + at : nullptr;
        const vf y = finished_sum(sum, load_part(column_scales + j + at, count), x.scales[i + r], bias ? load_part(bias, count) : vf{});
        store_part(g.c + (i + r) * g.ldc + j + at, y, count);
      }
    finish(g, i, i + rows, j, columns);
  }
  _tile_release();
}

// panel_of(g, p): columns p · 32 … of the right operand. before: factors of the columns of x; after: scales of the results.
template <class F>
void multiply(const Gemm& g, const float* before, const float* after, const F& panel_of) {
  const QuantisedRows rows = quantise_plain_rows(g.a.data, before, g.M, g.K);
  for_panels(g, ceil_div(g.M, 2 * kSide), [&](int64_t p, int64_t from, int64_t to, bool) {
    multiply_rows(g, rows, from * 2 * kSide, smaller(g.M, to * 2 * kSide), panel_of(g, p), after, p * kBlockSide);
  });
}

Gemm gemm_of(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y) {
  const int64_t N = transposed ? w.rows : w.columns, K = transposed ? w.columns : w.rows;
  return {M, N, K, {x, K, 1}, {nullptr, 0, 0}, epilogue, y, N, false};
}

void times(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y) {
  if (M <= kFewRows) return avx512vnni::int8_matmul.times(x, M, w, transposed, epilogue, y);
  const Gemm g = gemm_of(x, M, w, transposed, epilogue, y);
  const float *scales = static_cast<const float*>(w.parts[1]), *factors = static_cast<const float*>(w.parts[2]);
  const uint8_t* blocks = static_cast<const uint8_t*>(w.parts[0]);
  if (transposed) multiply(g, factors, scales, [&](const Gemm& g, int64_t p) { return blocks + p * blocks_of(g.K) * kBlockBytes; });
  else multiply(g, scales, factors, [&](const Gemm& g, int64_t p) { return turned_panel(g, w, p); });
}

void times_codes(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y) {
  if (M <= kFewRows) return avx512vnni::int8_matmul.times_int4(x, M, w, transposed, epilogue, y);
  const Gemm g = gemm_of(x, M, w, transposed, epilogue, y);
  const float *scales = static_cast<const float*>(w.parts[2]), *factors = static_cast<const float*>(w.parts[3]);
  if (transposed) multiply(g, factors, scales, [&](const Gemm&, int64_t p) { return unpacked_panel(w, p); });
  else multiply(g, scales, factors, [&](const Gemm&, int64_t p) { return turned_codes(w, p); });
}

}  // namespace

extern const Int8Matmul int8_matmul;
const Int8Matmul int8_matmul = {times, times_codes};

// Whether the tiles of this machine give the same results as VNNI.
bool amx_int8_agrees() {
  constexpr int64_t M = 37, N = 70, K = 100, kBlocks = 3 * 4;
  alignas(64) static uint8_t blocks[kBlocks * kBlockBytes];
  float x[M * K], scales[N], factors[K], y[2][M * N];
  const auto number = [](int64_t i) { return int32_t(uint32_t(i) * 2654435761u >> 24); };
  for (int64_t i = 0; i < kBlocks * kBlockBytes; i++) blocks[i] = uint8_t(number(i) == 0 ? 1 : number(i));
  for (int64_t i = 0; i < M * K; i++) x[i] = float(number(i + 7) - 128);
  for (int64_t i = 0; i < N; i++) scales[i] = 1;
  for (int64_t i = 0; i < K; i++) factors[i] = 1;
  const WeightView w{Encoding::int8, N, K, {blocks, scales, factors}};
  times(x, M, w, true, {}, y[0]);
  avx512vnni::int8_matmul.times(x, M, w, true, {}, y[1]);
  return __builtin_memcmp(y[0], y[1], sizeof y[0]) == 0;
}

}  // namespace ISA
}  // namespace blip2
