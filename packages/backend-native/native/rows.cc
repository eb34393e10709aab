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

// The rows of dy for each row of dx, in order: those of row r are order[first[r]] … order[first[r + 1] - 1].
struct Sources {
  int64_t *first, *order;
};

static Sources sources_of(const int32_t* indices, int64_t M, int64_t rows) {
  int64_t* room = reinterpret_cast<int64_t*>(scratch(kPartials, (rows + 2 + M) * 2));
  int64_t *next = room, *order = room + rows + 2;
  for (int64_t r = 0; r < rows + 2; r++) next[r] = 0;
  for (int64_t i = 0; i < M; i++) next[indices[i] + 2]++;
  for (int64_t r = 2; r < rows + 2; r++) next[r] += next[r - 1];
  for (int64_t i = 0; i < M; i++) order[next[indices[i] + 1]++] = i;
  return {next, order};
}

// Each task owns a range of columns. Repeated rows are summed in double: a token can occur very often.
void scatter_add_rows(const float* dy, const int32_t* indices, float* dx, int64_t M, int64_t D, int64_t rows) {
  const Sources s = sources_of(indices, M, rows);
  parallel_chunks(D, larger(16, 1048576 / larger(1, M + rows)), [=](int64_t begin, int64_t end) {
    constexpr int64_t tile = 64;
    for (int64_t r = 0; r < rows; r++)
      for (int64_t j = begin; j < end; j += tile) {
        const int64_t n = smaller(tile, end - j);
        double sums[tile] = {};
        for (int64_t k = s.first[r]; k < s.first[r + 1]; k++)
          for (int64_t c = 0; c < n; c++) sums[c] += double(dy[s.order[k] * D + j + c]);
        for (int64_t c = 0; c < n; c++) dx[r * D + j + c] = float(sums[c]);
      }
  });
}

}  // namespace ISA
}  // namespace blip2
