// Layer normalisation over the last axis: y = (x - mean) · rstd · weight + bias; and RMSNorm (Zhang & Sennrich 2019), which
// has no bias and no mean: both are null then, and the mean counts as 0. Rows are independent; sums over rows add fixed groups
// of rows, so that the result does not depend on the number of threads.
#include "reduce.h"

namespace blip2 {
namespace ISA {

void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* y, float* mean, float* rstd,
                int64_t M, int64_t N) {
  parallel_chunks(M, rows_per_chunk(N), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* row = x + i * N;
      const float mu = mean ? float(sum_over(N, [=](int64_t j, int64_t n) { return part(row, j, n); }) / double(N)) : 0.f;
      const double squares = sum_over(N, [=](int64_t j, int64_t n) {
        const vf c = keep(part(row, j, n) - mu, n);
        return c * c;
      });
      const float variance = float(squares / double(N));
      const float r = 1.f / __builtin_sqrtf(variance + eps);
      float* out = y + i * N;
      if (bias)
        for (int64_t j = 0; j < N; j++) out[j] = (row[j] - mu) * r * weight[j] + bias[j];
      else
        for (int64_t j = 0; j < N; j++) out[j] = (row[j] - mu) * r * weight[j];
      if (mean) mean[i] = mu;
      rstd[i] = r;
    }
  });
}

// With n = (x - mean) · rstd and g = dy · weight: dx = rstd · (g - mean(g) - n · mean(g · n)); of RMSNorm without mean(g).
void layer_norm_grad_input(const float* dy, const float* x, const float* weight, const float* mean, const float* rstd,
                           float* dx, int64_t M, int64_t N) {
  parallel_chunks(M, rows_per_chunk(N), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float *row = x + i * N, *drow = dy + i * N;
      const float mu = mean ? mean[i] : 0.f, r = rstd[i];
      const double g_sum = mean ? sum_over(N, [=](int64_t j, int64_t n) { return part(drow, j, n) * part(weight, j, n); }) : 0;
      const double gn_sum = sum_over(N, [=](int64_t j, int64_t n) {
        return part(drow, j, n) * part(weight, j, n) * ((part(row, j, n) - mu) * r);
      });
      const float g_mean = float(g_sum / double(N)), gn_mean = float(gn_sum / double(N));
      float* out = dx + i * N;
      for (int64_t j = 0; j < N; j++)
        out[j] = r * (drow[j] * weight[j] - g_mean - (row[j] - mu) * r * gn_mean);
    }
  });
}

void layer_norm_grad_weight(const float* dy, const float* x, const float* mean, const float* rstd, float* dweight,
                            int64_t M, int64_t N) {
  sum_over_rows(M, N, dweight, [=](int64_t i, float* sums) {
    const float *row = x + i * N, *drow = dy + i * N;
    const float mu = mean ? mean[i] : 0.f, r = rstd[i];
    for (int64_t j = 0; j < N; j++) sums[j] += drow[j] * ((row[j] - mu) * r);
  });
}

}  // namespace ISA
}  // namespace blip2
