// Cross-entropy of x · weightᵀ, block of columns by block of columns: the scores [M, V] are never held as a whole.
#pragma once
#include <cstdint>

namespace blip2 {

// x [M, D], weight [V, D], labels [M] below V, negative where a row does not count. Smoothing as in NnCrossEntropy.
struct LinearLoss {
  int64_t M, D, V;
  const float *x, *weight;
  const int32_t* labels;
  float smoothing;
};

void linear_loss(const LinearLoss& l, float* loss, float* lse);
// dx [M, D], dweight [V, D]
void linear_loss_grad_input(const LinearLoss& l, const float* lse, float dloss, float* dx);
void linear_loss_grad_weight(const LinearLoss& l, const float* lse, float dloss, float* dweight);

}  // namespace blip2
