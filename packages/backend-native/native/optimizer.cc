// AdamW (Loshchilov & Hutter 2019), decoupled weight decay first, as torch.optim.AdamW, over a list of tensors.
#include "simd.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kChunk = 16384;

// __restrict__: the outputs are new arrays. Without it the compiler does not vectorise.
void update(const float* __restrict__ param, const float* __restrict__ grad, const float* __restrict__ m,
            const float* __restrict__ v, float* __restrict__ new_param, float* __restrict__ new_m,
            float* __restrict__ new_v, int64_t n, const AdamW h, float decay) {
  for (int64_t i = 0; i < n; i++) {
    const float g = grad[i] * h.scale;
    const float mi = (h.from_m ? m[i] : g) + h.toward * (g - m[i]);
    const float vi = h.beta2 * v[i] + h.rest2 * g * g;
    new_m[i] = mi;
    new_v[i] = vi;
    new_param[i] = param[i] * decay - h.step * mi / (__builtin_sqrtf(vi) / h.root2 + h.eps);
  }
}

void update_part(const AdamWTensor& t, int64_t begin, int64_t n, const AdamW& h) {
  update(t.param + begin, t.grad + begin, t.m + begin, t.v + begin, t.new_param + begin, t.new_m + begin,
         t.new_v + begin, n, h, t.decay);
}

}  // namespace

// A chunk is a range of the concatenated elements: many small tensors are one task, a large one is several.
void adamw(const AdamWTensor* tensors, int64_t count, const AdamW& h) {
  int64_t all = 0;
  for (int64_t t = 0; t < count; t++) all += tensors[t].n;
  parallel_chunks(all, kChunk, [&](int64_t begin, int64_t end) {
    int64_t start = 0;   // of tensor t among all elements
    for (int64_t t = 0; t < count && start < end; start += tensors[t++].n) {
      const int64_t from = larger(begin, start), to = smaller(end, start + tensors[t].n);
      if (from < to) update_part(tensors[t], from - start, to - from, h);
    }
  });
}

}  // namespace ISA
}  // namespace blip2
