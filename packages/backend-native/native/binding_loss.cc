// The losses, exported to JavaScript.
#include "binding.h"
#include "dispatch.h"
#include "linear_loss.h"

namespace blip2 {
namespace {

// crossEntropy(logits, labels, labelSmoothing, loss, lse, M, V)
void cross_entropy(Call& call) {
  const int64_t M = call.size(5, "M"), V = call.size(6, "V");
  const int32_t* labels = call.ints(1, "labels", M);
  call.expect_range("labels", labels, M, INT32_MIN, V);
  kernels().cross_entropy(call.floats(0, "logits", {M, V}), labels, call.number(2, "labelSmoothing"),
                          call.floats(3, "loss", 1), call.floats(4, "lse", M), M, V);
}

// crossEntropyGrad(logits, labels, lse, dloss, labelSmoothing, dlogits, M, V)
void cross_entropy_grad(Call& call) {
  const int64_t M = call.size(6, "M"), V = call.size(7, "V");
  const int32_t* labels = call.ints(1, "labels", M);
  call.expect_range("labels", labels, M, INT32_MIN, V);
  kernels().cross_entropy_grad(call.floats(0, "logits", {M, V}), labels, call.floats(2, "lse", M),
                               *call.floats(3, "dloss", 1), call.number(4, "labelSmoothing"),
                               call.floats(5, "dlogits", {M, V}), M, V);
}

// Arguments 0 … 3: x, weight, labels, labelSmoothing; M, D, V and precision are the last, from `sizes` on.
LinearLoss linear_loss_call(Call& call, size_t sizes) {
  LinearLoss l{};
  l.precision = call.precision(sizes + 3);
  l.M = call.size(sizes, "M"), l.D = call.size(sizes + 1, "D"), l.V = call.size(sizes + 2, "V");
  if (l.D < 1) call.fail("D: expected at least 1, found 0");   // an empty weight would not limit V
  l.x = call.floats(0, "x", {l.M, l.D});
  if (const StoredWeight* stored = stored_or_null(call, 1)) {
    l.stored = &matmul_operand(*stored, l.precision);
    if (l.stored->rows != l.V || l.stored->columns != l.D) call.fail("weight: expected a matrix [V, D]");
  } else {
    l.weight = call.floats(1, "weight", {l.V, l.D});
  }
  l.labels = call.ints(2, "labels", l.M);
  call.expect_range("labels", l.labels, l.M, INT32_MIN, l.V);
  l.smoothing = call.number(3, "labelSmoothing");
  return l;
}

// linearCrossEntropy(x, weight, labels, labelSmoothing, loss, lse, M, D, V, precision)
void linear_cross_entropy(Call& call) {
  const LinearLoss l = linear_loss_call(call, 6);
  linear_loss(l, call.floats(4, "loss", 1), call.floats(5, "lse", l.M));
}

// linearCrossEntropyGradInput(x, weight, labels, labelSmoothing, lse, dloss, dx, M, D, V, precision)
void linear_cross_entropy_grad_input(Call& call) {
  const LinearLoss l = linear_loss_call(call, 7);
  const float dloss = *call.floats(5, "dloss", 1);
  linear_loss_grad_input(l, call.floats(4, "lse", l.M), dloss, call.floats(6, "dx", {l.M, l.D}));
}

// linearCrossEntropyGradWeight(x, weight, labels, labelSmoothing, lse, dloss, dweight, M, D, V, precision)
void linear_cross_entropy_grad_weight(Call& call) {
  const LinearLoss l = linear_loss_call(call, 7);
  const float dloss = *call.floats(5, "dloss", 1);
  linear_loss_grad_weight(l, call.floats(4, "lse", l.M), dloss, call.floats(6, "dweight", {l.V, l.D}));
}

}  // namespace

void define_losses(napi_env env, napi_value exports) {
  define<cross_entropy>(env, exports, "crossEntropy");
  define<cross_entropy_grad>(env, exports, "crossEntropyGrad");
  define<linear_cross_entropy>(env, exports, "linearCrossEntropy");
  define<linear_cross_entropy_grad_input>(env, exports, "linearCrossEntropyGradInput");
  define<linear_cross_entropy_grad_weight>(env, exports, "linearCrossEntropyGradWeight");
}

}  // namespace blip2
