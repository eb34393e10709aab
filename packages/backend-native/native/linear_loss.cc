#include "linear_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "dispatch.h"
#include "thread_pool.h"

namespace blip2 {
namespace {

constexpr int64_t kBlockFloats = 1 << 20;   // scores in memory at a time, as long as a block has kFewestColumns
constexpr int64_t kFewestColumns = 512, kMostColumns = 8192;

// scores [M, n] = x · rowsᵀ, dx += d · rows, where `rows` are the weight's from … from + n - 1. Only these two functions depend on how
// the weight is stored.
void times_rows(const LinearLoss& l, int64_t from, int64_t n, float* scores) {
  if (l.stored) return matmul_kernels(l.precision).gemm_stored(l.x, l.M, l.stored->slice(from, n), true, nullptr, scores);
  matmul_kernels(l.precision).gemm({l.M, n, l.D, {l.x, l.D, 1}, {l.weight + from * l.D, 1, l.D}, nullptr, scores, n, false});
}

void back_through_rows(const LinearLoss& l, int64_t from, int64_t n, const float* d, float* dx) {
  if (!l.stored)
    return matmul_kernels(l.precision).gemm({l.M, l.D, n, {d, n, 1}, {l.weight + from * l.D, l.D, 1}, nullptr, dx, l.D, from > 0});
  if (from == 0) return matmul_kernels(l.precision).gemm_stored(d, l.M, l.stored->slice(from, n), false, nullptr, dx);
  float* part = scratch(kLossPart, l.M * l.D);
  matmul_kernels(l.precision).gemm_stored(d, l.M, l.stored->slice(from, n), false, nullptr, part);
  for (int64_t i = 0; i < l.M * l.D; i++) dx[i] += part[i];
}

// Calls f(block) for consecutive blocks of columns, with their scores.
template <class F>
void for_blocks(const LinearLoss& l, const F& f) {
  const int64_t wish = kBlockFloats / std::max<int64_t>(1, l.M) / 64 * 64;
  const int64_t columns = std::min(l.V, std::min(kMostColumns, std::max(kFewestColumns, wish)));
  float* scores = scratch(kLossScores, std::max<int64_t>(1, l.M * columns));
  for (int64_t from = 0; from < l.V; from += columns) {
    const int64_t n = std::min(columns, l.V - from);
    times_rows(l, from, n, scores);
    f(LossBlock{scores, l.labels, from, l.M, n});
  }
}

LossRows fresh_rows(int64_t M) {
  double* doubles = reinterpret_cast<double*>(scratch(kLossRows, std::max<int64_t>(1, 6 * M)));
  float* floats = reinterpret_cast<float*>(doubles + 2 * M);
  std::fill(doubles, doubles + 2 * M, 0.);
  std::fill(floats, floats + M, -std::numeric_limits<float>::infinity());
  std::fill(floats + M, floats + 2 * M, 0.f);
  return {doubles, doubles + M, floats, floats + M};
}

// Calls f(block) with the gradient of the scores instead of the scores.
template <class F>
void for_gradient_blocks(const LinearLoss& l, const float* lse, float dloss, const F& f) {
  const int64_t labelled = std::count_if(l.labels, l.labels + l.M, [](int32_t label) { return label >= 0; });
  const float factor = dloss / float(labelled), rest = float(l.smoothing / double(l.V));
  for_blocks(l, [&](const LossBlock& block) {
    kernels().loss_block_grad(block, lse, factor, rest, float(1 - l.smoothing));
    f(block);
  });
}

}  // namespace

void linear_loss(const LinearLoss& l, float* loss, float* lse) {
  const LossRows rows = fresh_rows(l.M);
  for_blocks(l, [&](const LossBlock& block) { kernels().loss_block(block, rows); });
  double sum = 0;
  int64_t labelled = 0;
  for (int64_t i = 0; i < l.M; i++) {
    const double exact = double(rows.largest[i]) + std::log(rows.sum[i]);
    lse[i] = float(exact);
    if (l.labels[i] < 0) continue;
    labelled++;
    sum += (1 - l.smoothing) * (exact - double(rows.picked[i]));
    if (l.smoothing > 0) sum += l.smoothing * (exact - rows.total[i] / double(l.V));
  }
  *loss = float(sum / double(labelled));   // 0 / 0 without a labelled row: NaN, as PyTorch
}

void linear_loss_grad_input(const LinearLoss& l, const float* lse, float dloss, float* dx) {
  for_gradient_blocks(l, lse, dloss,
                      [&](const LossBlock& b) { back_through_rows(l, b.from, b.N, b.scores, dx); });
}

void linear_loss_grad_weight(const LinearLoss& l, const float* lse, float dloss, float* dweight) {
  for_gradient_blocks(l, lse, dloss, [&](const LossBlock& b) {
    matmul_kernels(l.precision).gemm({b.N, l.D, l.M, {b.scores, 1, b.N}, {l.x, l.D, 1}, nullptr, dweight + b.from * l.D, l.D, false});
  });
}

}  // namespace blip2
