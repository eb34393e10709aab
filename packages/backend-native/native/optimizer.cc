// AdamW (Loshchilov & Hutter 2019), decoupled weight decay first, as torch.optim.AdamW.
#include "simd.h"

namespace blip2 {
namespace ISA {
namespace {

// __restrict__: the outputs are new arrays, which the compiler must know to use vectors.
void update(const float* __restrict__ param, const float* __restrict__ grad, const float* __restrict__ m,
            const float* __restrict__ v, float* __restrict__ new_param, float* __restrict__ new_m,
            float* __restrict__ new_v, int64_t n, const AdamW h) {
  const float decay = 1 - h.lr * h.weight_decay, step = h.lr / h.c1, correction = 1 / h.c2;
  const float rest1 = 1 - h.beta1, rest2 = 1 - h.beta2;
  for (int64_t i = 0; i < n; i++) {
    const float g = grad[i] * h.scale;
    const float mi = h.beta1 * m[i] + rest1 * g;
    const float vi = h.beta2 * v[i] + rest2 * g * g;
    new_m[i] = mi;
    new_v[i] = vi;
    new_param[i] = param[i] * decay - step * mi / (__builtin_sqrtf(vi * correction) + h.eps);
  }
}

}  // namespace

void adamw(const float* param, const float* grad, const float* m, const float* v, float* new_param, float* new_m,
           float* new_v, int64_t n, const AdamW& h) {
  parallel_chunks(n, 16384, [=](int64_t begin, int64_t end) {
    update(param + begin, grad + begin, m + begin, v + begin, new_param + begin, new_m + begin, new_v + begin,
           end - begin, h);
  });
}

}  // namespace ISA
}  // namespace blip2
