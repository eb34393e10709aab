// Sums over one axis of a matrix; gathering rows of a table and adding to them.
#include "reduce.h"

namespace blip2 {
namespace ISA {

void sum_rows(const float* x, float* y, int64_t M, int64_t N) {
  sum_over_rows(M, N, y, [=](int64_t i, float* sums) {
    for (int64_t j = 0; j < N; j++) sums[j] += x[i * N + j];
  });
}

void sum_columns(const float* x, float* y, int64_t M, int64_t N) {
  parallel_chunks(M, rows_per_chunk(N), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* row = x + i * N;
      y[i] = float(sum_over(N, [=](int64_t j, int64_t n) { return part(row, j, n); }));
    }
  });
}

double squared_sum(const float* x, int64_t n) {
  constexpr int64_t chunk = 16384;
  const int64_t chunks = ceil_div(n, chunk);
  double* partials = reinterpret_cast<double*>(scratch(kPartials, larger(1, chunks) * 2));
  parallel_tasks(chunks, [=](int64_t task) {
    const float* p = x + task * chunk;
    partials[task] = sum_over(smaller(chunk, n - task * chunk), [=](int64_t j, int64_t count) {
      const vf v = part(p, j, count);
      return v * v;
    });
  });
  double sum = 0;
  for (int64_t c = 0; c < chunks; c++) sum += partials[c];
  return sum;
}

void gather_rows(const float* x, const int32_t* indices, float* y, int64_t M, int64_t D) {
  if (D == 0) return;
  parallel_chunks(M, rows_per_chunk(D), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      __builtin_memcpy(y + i * D, x + int64_t(indices[i]) * D, size_t(D) * 4);
  });
}

// Each task owns a range of columns, so that repeated rows are added in order and without locks.
void scatter_add_rows(const float* dy, const int32_t* indices, float* dx, int64_t M, int64_t D, int64_t rows) {
  parallel_chunks(D, larger(16, 1048576 / larger(1, M + rows)), [=](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; r++)
      for (int64_t j = begin; j < end; j++) dx[r * D + j] = 0;
    for (int64_t i = 0; i < M; i++) {
      float* row = dx + int64_t(indices[i]) * D;
      for (int64_t j = begin; j < end; j++) row[j] += dy[i * D + j];
    }
  });
}

}  // namespace ISA
}  // namespace blip2
