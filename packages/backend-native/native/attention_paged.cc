// Attention of a few queries to keys and values that lie in pages, as generation with a cache does it (Kwon et al. 2023).
// Each key is read where it lies, so nothing is packed or copied; one query of one head at a time.
#include "attention_rows.h"
#include "reduce.h"

namespace blip2 {
namespace ISA {
namespace {

// out [d] = Σ p[j] · row j, by column, four vectors at once.
void weigh_rows(const float* p, const float* const* rows, int64_t n, int64_t offset, int64_t d, float* out) {
  int64_t c = 0;
  for (; c + 4 * W <= d; c += 4 * W) {
    vf s0{}, s1{}, s2{}, s3{};
    for (int64_t j = 0; j < n; j++) {
      const float* x = rows[j] + offset + c;
      s0 += load(x) * p[j];
      s1 += load(x + W) * p[j];
      s2 += load(x + 2 * W) * p[j];
      s3 += load(x + 3 * W) * p[j];
    }
    store(out + c, s0);
    store(out + c + W, s1);
    store(out + c + 2 * W, s2);
    store(out + c + 3 * W, s3);
  }
  for (; c < d; c += W) {
    const int64_t count = smaller(W, d - c);
    vf sum{};
    for (int64_t j = 0; j < n; j++) sum += part(rows[j] + offset, c, count) * p[j];
    for (int64_t l = 0; l < count; l++) out[c + l] = sum[l];
  }
}

void query(const PagedAttention& a, int64_t b, int64_t h, int64_t i) {
  const int64_t d = a.D / a.H, at = (b * a.Tq + i) * a.D + h * d;
  const int64_t keys = a.causal ? larger(0, smaller(a.Tk, i + a.Tk - a.Tq + 1)) : a.Tk;
  float* p = scratch(kScores, padded(a.Tk));
  const float* const* k = a.k + b * a.Tk;
  for (int64_t j = 0; j < keys; j++) p[j] = dot(a.q + at, k[j] + h * d, d);
  clear(p + keys, padded(keys) - keys);
  const float largest = mask_row(p, keys, keys, a.scale, padded_mask(a.key_mask, b, a.Tk));
  if (largest == -__builtin_inff()) return clear(a.out + at, d);
  const float scale = 1.f / exp_row(p, keys, largest);
  for (int64_t j = 0; j < keys; j++) p[j] *= scale;
  weigh_rows(p, a.v + b * a.Tk, keys, h * d, d, a.out + at);
}

}  // namespace

void paged_attention(const PagedAttention& a) {
  parallel_tasks(a.B * a.H, [&](int64_t task) {
    for (int64_t i = 0; i < a.Tq; i++) query(a, task / a.H, task % a.H, i);
  });
}

}  // namespace ISA
}  // namespace blip2
