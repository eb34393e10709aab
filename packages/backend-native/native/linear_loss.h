// Cross-entropy of x · weightᵀ, block of columns by block of columns, without holding all scores [M, V] in memory.
#pragma once
#include <cstdint>

#include "dispatch.h"
#include "weight_view.h"

namespace blip2 {

// x [M, D], weight [V, D], labels [M] below V, negative for rows without a label. Smoothing as in NnCrossEntropy.
struct LinearLoss {
  int64_t M, D, V;
  const float *x, *weight;
  const int32_t* labels;
  double smoothing;
  const WeightView* stored;   // the weight if it is a stored one; `weight` is null then
  Precision precision;
};

void linear_loss(const LinearLoss& l, float* loss, float* lse);
// dx [M, D], dweight [V, D]
void linear_loss_grad_input(const LinearLoss& l, const float* lse, float dloss, float* dx);
void linear_loss_grad_weight(const LinearLoss& l, const float* lse, float dloss, float* dweight);

}  // namespace blip2
