// The int4 encoding of a weight (weight_view.h). All levels give the same bytes: numbers are compared as whole numbers, in 64ths of 1/120 of
// the largest magnitude of their row, and every other step is rounded once.
#include "gemm_int4.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int32_t kParts = 64, kMostSteps = 16;
constexpr float kTop = 7.5f * kMostSteps;   // the largest magnitude: between the codes -8 and 7 with the largest step

inline vi nearest(vf v) {
#if defined(__AVX512F__)
  return (vi)_mm512_cvtps_epi32((__m512)v);
#elif defined(__AVX2__)
  return (vi)_mm256_cvtps_epi32((__m256)v);
#else
  vi n;
  for (int i = 0; i < W; i++) n[i] = int32_t(__builtin_lrintf(v[i]));
  return n;
#endif
}

inline vi at_least(vi v, int32_t low) { return v > low ? v : vi{} + low; }
inline vi at_most(vi v, int32_t high) { return v < high ? v : vi{} + high; }

// q = -8 … 7 of numbers v with this step.
inline vi codes_of(vi v, int32_t step) {
  const vf inverse = splat(1.f / float(kParts * step));
  return at_most(at_least(nearest(__builtin_convertvector(v, vf) * inverse), -8), 7);
}

// The step from 1 to 16 with the least sum of squared errors for the 64 numbers v; of equal ones, the smallest. Steps with which the largest
// number would lose half of its magnitude are not tried, so that the sum fits 32 bits, nor those that are larger than necessary.
inline int32_t step_of(const int32_t* v) {
  vi most{};
  for (int64_t k = 0; k < kGroupSide; k += W) {
    const vi n = (vi)load(reinterpret_cast<const float*>(v + k));
    most = later(most, n < 0 ? -n : n);
  }
  const int32_t largest = largest_lane(most), last = (largest + 7 * kParts - 1) / (7 * kParts);
  int32_t best = 1;
  int64_t least = INT64_MAX;
  const int32_t first = (largest + 16 * kParts - 1) / (16 * kParts);
  for (int32_t step = first > 0 ? first : 1; step <= last && step <= kMostSteps; step++) {
    vi squares{};
    for (int64_t k = 0; k < kGroupSide; k += W) {
      const vi n = (vi)load(reinterpret_cast<const float*>(v + k)), error = n - codes_of(n, step) * (kParts * step);
      squares += error * error;
    }
    int64_t total = 0;
    for (int i = 0; i < W; i++) total += squares[i];
    if (total < least) least = total, best = step;
  }
  return best;
}

// Row n of 32: its codes and steps, from its numbers v, which are padded with zeros to whole groups.
inline void write_row(const int32_t* v, int64_t groups, int64_t n, uint8_t* codes, uint8_t* steps) {
  for (int64_t g = 0; g < groups; g++, v += kGroupSide) {
    const int32_t step = step_of(v);
    steps[g * kBlockSide + n] = uint8_t(step);
    int32_t q[kGroupSide];
    for (int64_t k = 0; k < kGroupSide; k += W)
      store(reinterpret_cast<float*>(q + k), (vf)(codes_of((vi)load(reinterpret_cast<const float*>(v + k)), step) + 8));
    for (int64_t k = 0; k < kGroupSide; k += 8)
      for (int64_t i = 0; i < 4; i++)
        codes[g * kGroupBytes + k / 8 * (4 * kBlockSide) + n * 4 + i] = uint8_t(q[k + i] | q[k + 4 + i] << 4);
  }
}

template <class Codec>
void quantise_panel_int4(const Codec& codec, int64_t rows, int64_t columns, const float* by, uint8_t* codes, uint8_t* steps, float* scales) {
  const int64_t groups = groups_of(columns), padded = groups * kGroupSide;
  float* row = scratch(kRow, 2 * padded);
  int32_t* v = reinterpret_cast<int32_t*>(row + padded);
  for (int64_t n = 0; n < kBlockSide; n++) {
    for (int64_t k = 0; k < padded; k += W) store(reinterpret_cast<float*>(v + k), vf{});
    if (n < rows) {
      const auto from = codec.row(n);
      for (int64_t k = 0; k < columns; k += W) store_part(row + k, from.load_part(k, smaller(W, columns - k)), smaller(W, columns - k));
      const RowScale s = scale_of(row, by, columns, kTop);
      scales[n] = s.scale;
      const vf inverse = splat(s.inverse * kParts);
      if (s.inverse != 0)   // also for NaN, which has no integer
        for (int64_t k = 0; k < columns; k += W) {
          const int64_t count = smaller(W, columns - k);
          store_part(reinterpret_cast<float*>(v + k), (vf)nearest(load_part(row + k, count) * load_part(by + k, count) * inverse), count);
        }
    }
    write_row(v, groups, n, codes, steps);
  }
}

}  // namespace

void quantise_int4(const WeightView& w, const float* factors, uint8_t* codes, uint8_t* steps, float* scales) {
  float* inverse = scratch(kMask, w.columns);
  for (int64_t k = 0; k < w.columns; k++) inverse[k] = 1 / factors[k];
  const int64_t groups = groups_of(w.columns);
  with_codec(w, [&](const auto& codec) {
    parallel_tasks(blocks_of(w.rows), [&](int64_t p) {
      const int64_t row = p * kBlockSide;
      quantise_panel_int4(codec.from(row, 0), smaller(kBlockSide, w.rows - row), w.columns, inverse, codes + p * groups * kGroupBytes,
                          steps + p * groups * kBlockSide, scales + row);
    });
  });
}

}  // namespace ISA
}  // namespace blip2
