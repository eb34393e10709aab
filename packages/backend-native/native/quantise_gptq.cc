// The int4 encoding of a weight by GPTQ (Frantar et al. 2023): columns are rounded in their order, and each makes up for what those before
// it changed in the outputs, as far as one number can. With the root R of input_root.cc, the error of the outputs of a row is the sum over
// columns i of (Σ_j≤i e_j · R[j, i])², e being the error of the weight. So column i is rounded to w_i + Σ_j<i e_j · R[j, i] / R[i, i].
// The step of 64 columns is the one with the least sum for them. Scales are those of plain rounding (quantise_int4.cc).
#include "gemm_int4.h"

namespace blip2 {
namespace ISA {

extern const MatmulKernels float32_matmul;

namespace {

constexpr float kMostSteps = 16, kTop = 7.5f * kMostSteps;

inline vf codes_of(vf v) {
  const vf bounded = vmin(vmax(v, splat(-8)), splat(7));
#if defined(__AVX512F__)
  return (vf)_mm512_roundscale_ps((__m512)bounded, 0);
#elif defined(__AVX2__)
  return (vf)_mm256_round_ps((__m256)bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  vf n;
  for (int i = 0; i < W; i++) n[i] = __builtin_rintf(bounded[i]);
  return n;
#endif
}

// Columns of a group: their part of the root, and for each column its factor, and its diagonal of the root times the factor.
struct Group {
  int64_t first, count;
  float root[kGroupSide * kGroupSide], factor[kGroupSide], weight[kGroupSide];

  Group(int64_t g, int64_t K, const float* all, const float* factors) : first(g * kGroupSide), count(smaller(kGroupSide, K - first)) {
    for (int64_t i = 0; i < count; i++) {
      __builtin_memcpy(root + i * kGroupSide, all + (first + i) * K + first, size_t(count) * 4);
      factor[i] = factors[first + i];
      weight[i] = factor[i] * root[i * (kGroupSide + 1)];
    }
  }
};

// W rows of a group, column by column: numbers in units of the scale of their row, and what the groups before it changed. Then codes, and
// errors times the factor of their column.
struct Lanes {
  vf numbers[kGroupSide], before[kGroupSide], codes[kGroupSide], errors[kGroupSide];
};

// Rounds with these steps; returns the sums of squares.
inline vf round_lanes(const Group& g, vf step, Lanes& lanes) {
  vf changed[kGroupSide], total{};
  const vf inverse = 1.f / step;
  for (int64_t i = 0; i < g.count; i++) changed[i] = lanes.before[i];
  for (int64_t i = 0; i < g.count; i++) {
    const vf wanted = lanes.numbers[i] + changed[i] / g.weight[i];
    lanes.codes[i] = codes_of(wanted * inverse);
    const vf made = lanes.codes[i] * step, left = (wanted - made) * g.weight[i];
    total += left * left;
    lanes.errors[i] = (lanes.numbers[i] - made) * g.factor[i];
    const float* row = g.root + i * kGroupSide;
    for (int64_t j = i + 1; j < g.count; j++) changed[j] += lanes.errors[i] * row[j];
  }
  return total;
}

inline vf best_steps(const Group& g, Lanes& lanes) {
  vf best = splat(1), least = round_lanes(g, best, lanes);
  for (float step = 2; step <= kMostSteps; step++) {
    const vf total = round_lanes(g, splat(step), lanes);
    best = total < least ? splat(step) : best;
    least = vmin(total, least);
  }
  return best;
}

// Rows n … n + W of a panel of 32.
void write_codes(const Group& g, const Lanes& lanes, vf step, int64_t n, uint8_t* codes, uint8_t* steps) {
  for (int r = 0; r < W; r++) {
    steps[n + r] = uint8_t(step[r]);
    const auto code = [&](int64_t k) { return k < g.count ? uint8_t(lanes.codes[k][r] + 8) : uint8_t(8); };
    for (int64_t k = 0; k < kGroupSide; k += 8)
      for (int64_t i = 0; i < 4; i++) codes[k / 8 * (4 * kBlockSide) + (n + r) * 4 + i] = uint8_t(code(k + i) | code(k + 4 + i) << 4);
  }
}

// u [rows, K] of a weight in units of the scales, without the factors. A row without a scale is all zeros.
template <class Codec>
void scaled_rows(const Codec& codec, int64_t begin, int64_t end, int64_t K, const float* inverse_factors, float* scales, float* u) {
  for (int64_t n = begin; n < end; n++) {
    float* row = u + n * K;
    const auto from = codec.row(n);
    for (int64_t k = 0; k < K; k += W) store_part(row + k, from.load_part(k, smaller(W, K - k)), smaller(W, K - k));
    const RowScale s = scale_of(row, inverse_factors, K, kTop);
    scales[n] = s.scale;
    for (int64_t k = 0; k < K; k += W) {
      const int64_t count = smaller(W, K - k);
      store_part(row + k, s.inverse == 0 ? vf{} : load_part(row + k, count) * load_part(inverse_factors + k, count) * splat(s.inverse), count);
    }
  }
}

}  // namespace

void quantise_int4_gptq(const WeightView& w, const float* factors, const float* root, float* room, const Int4Parts& to) {
  const int64_t N = w.rows, K = w.columns, groups = groups_of(K);
  float *u = room, *before = room + N * K;   // u becomes the errors, from the first column to the last
  float* inverse = scratch(kMask, K);
  for (int64_t k = 0; k < K; k++) inverse[k] = 1 / factors[k];
  with_codec(w, [&](const auto& codec) {
    parallel_chunks(N, kBlockSide, [&](int64_t begin, int64_t end) { scaled_rows(codec, begin, end, K, inverse, to.scales, u); });
  });
  for (int64_t g = 0; g < groups; g++) {
    const Group group(g, K, root, factors);
    const int64_t count = group.count;
    if (g > 0) float32_matmul.gemm({N, count, group.first, {u, K, 1}, {root + group.first, K, 1}, {}, before, count, false});
    parallel_tasks(blocks_of(N) * (kBlockSide / W), [&](int64_t task) {
      const int64_t n = task * W, lanes_used = smaller(W, larger(0, N - n)), panel = n / kBlockSide;
      Lanes lanes{};
      for (int64_t i = 0; i < count; i++)
        for (int64_t r = 0; r < lanes_used; r++) {
          lanes.numbers[i][r] = u[(n + r) * K + group.first + i];
          if (g > 0) lanes.before[i][r] = before[(n + r) * count + i];
        }
      const vf step = best_steps(group, lanes);
      round_lanes(group, step, lanes);
      write_codes(group, lanes, step, n % kBlockSide, to.codes + (panel * groups + g) * kGroupBytes, to.steps + (panel * groups + g) * kBlockSide);
      for (int64_t i = 0; i < count; i++)
        for (int64_t r = 0; r < lanes_used; r++) u[(n + r) * K + group.first + i] = lanes.errors[i][r];
    });
  }
}

}  // namespace ISA
}  // namespace blip2
