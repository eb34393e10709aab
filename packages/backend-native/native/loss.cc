// Mean cross-entropy over labelled rows, with label smoothing s: target = (1 - s) · onehot + s / V.
#include "reduce.h"

namespace blip2 {
namespace ISA {
namespace {

// out = (exp(row - lse) - rest) · factor, for every column; the caller subtracts the label's share.
void softmax_grad(const float* row, float* out, int64_t n, float lse, float rest, float factor) {
  for (int64_t j = 0; j < n; j += W) {
    const int64_t count = smaller(W, n - j);
    const vf d = (vexp(part(row, j, count) - lse) - rest) * factor;
    if (count == W) store(out + j, d);
    else store_part(out + j, d, count);
  }
}

void clear(float* out, int64_t n) {
  for (int64_t j = 0; j < n; j++) out[j] = 0;
}

float largest_of(const float* row, int64_t n) {
  vf largest = splat(-__builtin_inff());
  int64_t j = 0;
  for (; j + W <= n; j += W) largest = vmax(largest, load(row + j));
  float m = max_of(largest);
  for (; j < n; j++) m = row[j] > m ? row[j] : m;
  return m;
}

// Σ exp(row - shift)
double sum_of_exp(const float* row, int64_t n, float shift) {
  return sum_over(n, [=](int64_t i, int64_t count) { return keep(vexp(part(row, i, count) - shift), count); });
}

float log_sum_exp(const float* row, int64_t V) {
  const float m = largest_of(row, V);
  if (m == -__builtin_inff()) return m;
  return m + float(__builtin_log(sum_of_exp(row, V, m)));
}

}  // namespace

void cross_entropy(const float* logits, const int32_t* labels, double smoothing, float* loss, float* lse, int64_t M,
                   int64_t V) {
  float* losses = scratch(kPartials, larger(1, M));
  parallel_chunks(M, rows_per_chunk(V), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* row = logits + i * V;
      lse[i] = log_sum_exp(row, V);
      if (labels[i] < 0) continue;
      const float shift = lse[i];
      double row_loss = (1 - smoothing) * double(shift - row[labels[i]]);
      if (smoothing > 0)
        row_loss += smoothing / double(V) * sum_over(V, [=](int64_t j, int64_t n) { return keep(shift - part(row, j, n), n); });
      losses[i] = float(row_loss);
    }
  });
  double sum = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < M; i++)
    if (labels[i] >= 0) {
      sum += double(losses[i]);
      count++;
    }
  *loss = float(sum / double(count));   // 0 / 0 without a labelled row: NaN, as PyTorch
}

// dlogits = (softmax - target) · dloss / labelled rows, zero in rows without a label.
void cross_entropy_grad(const float* logits, const int32_t* labels, const float* lse, float dloss, double smoothing,
                        float* dlogits, int64_t M, int64_t V) {
  int64_t count = 0;
  for (int64_t i = 0; i < M; i++) count += labels[i] >= 0;
  const float factor = dloss / float(count), rest = float(smoothing / double(V));
  const float picked = float(1 - smoothing) * factor;
  parallel_chunks(M, rows_per_chunk(V), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* row = logits + i * V;
      float* out = dlogits + i * V;
      if (labels[i] < 0) {
        clear(out, V);
        continue;
      }
      softmax_grad(row, out, V, lse[i], rest, factor);
      out[labels[i]] -= picked;
    }
  });
}

void loss_block(const LossBlock& b, const LossRows& rows) {
  parallel_chunks(b.M, rows_per_chunk(b.N), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* row = b.scores + i * b.N;
      const int64_t label = b.labels[i] - b.from;
      if (label >= 0 && label < b.N) rows.picked[i] = row[label];
      rows.total[i] += sum_over(b.N, [=](int64_t j, int64_t n) { return part(row, j, n); });
      const float before = rows.largest[i], here = largest_of(row, b.N);
      const float largest = here > before ? here : before;
      if (largest == -__builtin_inff()) continue;
      rows.sum[i] = rows.sum[i] * __builtin_exp(double(before) - double(largest)) + sum_of_exp(row, b.N, largest);
      rows.largest[i] = largest;
    }
  });
}

void loss_block_grad(const LossBlock& b, const float* lse, float factor, float rest, float picked) {
  parallel_chunks(b.M, rows_per_chunk(b.N), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float* row = b.scores + i * b.N;
      if (b.labels[i] < 0) {
        clear(row, b.N);
        continue;
      }
      softmax_grad(row, row, b.N, lse[i], rest, factor);
      const int64_t label = b.labels[i] - b.from;
      if (label >= 0 && label < b.N) row[label] -= picked * factor;
    }
  });
}

}  // namespace ISA
}  // namespace blip2
