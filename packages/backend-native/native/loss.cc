// Mean cross-entropy over labelled rows, with label smoothing s: target = (1 - s) · onehot + s / V.
#include "reduce.h"

namespace blip2 {
namespace ISA {
namespace {

float log_sum_exp(const float* row, int64_t V) {
  vf largest = splat(-__builtin_inff());
  int64_t j = 0;
  for (; j + W <= V; j += W) largest = vmax(largest, load(row + j));
  float m = max_of(largest);
  for (; j < V; j++) m = row[j] > m ? row[j] : m;
  if (m == -__builtin_inff()) return m;
  double sum = 0;
  for (int64_t from = 0; from < V; from += 4096) {
    const float* piece = row + from;
    sum += double(sum_over(smaller(4096, V - from),
                           [=](int64_t i, int64_t n) { return keep(vexp(part(piece, i, n) - m), n); }));
  }
  return m + float(__builtin_log(sum));
}

}  // namespace

void cross_entropy(const float* logits, const int32_t* labels, float smoothing, float* loss, float* lse, int64_t M,
                   int64_t V) {
  float* losses = scratch(kPartials, larger(1, M));
  parallel_chunks(M, rows_per_chunk(V), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* row = logits + i * V;
      lse[i] = log_sum_exp(row, V);
      if (labels[i] < 0) continue;
      losses[i] = (1 - smoothing) * (lse[i] - row[labels[i]]);
      if (smoothing > 0) {
        const float shift = lse[i];
        losses[i] += smoothing / float(V) *
                     sum_over(V, [=](int64_t j, int64_t n) { return keep(shift - part(row, j, n), n); });
      }
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
void cross_entropy_grad(const float* logits, const int32_t* labels, const float* lse, float dloss, float smoothing,
                        float* dlogits, int64_t M, int64_t V) {
  int64_t count = 0;
  for (int64_t i = 0; i < M; i++) count += labels[i] >= 0;
  const float factor = dloss / float(count), rest = smoothing / float(V);
  parallel_chunks(M, rows_per_chunk(V), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* row = logits + i * V;
      float* out = dlogits + i * V;
      if (labels[i] < 0) {
        for (int64_t j = 0; j < V; j++) out[j] = 0;
        continue;
      }
      const float shift = lse[i];
      for (int64_t j = 0; j < V; j += W) {
        const int64_t n = smaller(W, V - j);
        const vf d = (vexp(part(row, j, n) - shift) - rest) * factor;
        if (n == W) store(out + j, d);
        else store_part(out + j, d, n);
      }
      out[labels[i]] -= (1 - smoothing) * factor;
    }
  });
}

}  // namespace ISA
}  // namespace blip2
