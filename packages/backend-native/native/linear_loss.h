// Cross-entropy of x · weightᵀ, block of columns by block of columns: the scores [M, V] are never held as a whole.
#pragma once
#include <cstdint>

#include "dispatch.h"
#include "stored_matrix.h"

namespace blip2 {

// x [M, D], weight [V, D], labels [M] below V, negative where a row does not count. Smoothing as in NnCrossEntropy.
struct LinearLoss {
  int64_t M, D, V;
  const float *x, *weight;
  const int32_t* labels;
  float smoothing;
  const StoredMatrix* stored;   // the weight where it stays in its file; `weight` is null then
  Precision precision;
};

void linear_loss(const LinearLoss& l, float* loss, float* lse);
// dx [M, D], dweight [V, D]
void linear_loss_grad_input(const LinearLoss& l, const float* lse, float dloss, float* dx);
void linear_loss_grad_weight(const LinearLoss& l, const float* lse, float dloss, float* dweight);

}  // namespace blip2
