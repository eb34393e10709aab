// The parts of layers.h that do not depend on the kind of layer.
#include "layers.h"

#include <memory>

namespace blip2 {
namespace {

void times(const LayerLinear& l, const LayerSizes& sizes, const float* x, const Epilogue& epilogue, float* y) {
  if (l.stored) return times_stored(x, sizes.M, matmul_operand(*l.stored, sizes.precision), true, epilogue, y, sizes.precision);
  matmul_kernels(sizes.precision)
      .gemm({sizes.M, l.out, l.in, {x, l.in, 1}, {l.weight, 1, l.in}, epilogue, y, l.out, false, l.packed});
}

}  // namespace

void apply(const LayerLinear& l, const LayerSizes& sizes, const float* x, const float* residual, float* low, float* y) {
  times(l, sizes, x, {l.bias, Activation::none, residual}, y);
  if (l.rank == 0) return;
  const MatmulKernels& matmul = matmul_kernels(sizes.precision);
  matmul.gemm({sizes.M, l.rank, l.in, {x, l.in, 1}, {l.lora_a, 1, l.in}, {}, low, l.rank, false, l.packed_a});
  for (int64_t i = 0; i < sizes.M * l.rank; i++) low[i] *= l.scaling;
  matmul.gemm({sizes.M, l.out, l.rank, {low, l.rank, 1}, {l.lora_b, 1, l.rank}, {}, y, l.out, true});
}

void activated(const LayerLinear& fc1, const LayerSizes& sizes, const float* x, float* low, float* y) {
  if (fc1.rank == 0) return times(fc1, sizes, x, {fc1.bias, sizes.activation}, y);
  apply(fc1, sizes, x, nullptr, low, y);
  const int64_t count = sizes.M * sizes.F;
  if (sizes.activation == Activation::gelu) return kernels().gelu(y, y, count);
  const std::unique_ptr<uint8_t[]> positive(new uint8_t[size_t(count)]);
  kernels().relu(y, y, positive.get(), count);
}

int64_t layer_count(const Call& call, size_t i) {
  const int64_t norms = call.list_length(i, "norms");
  if (norms == 0 || norms % kLayerNorms != 0)
    call.fail("norms: expected four for each layer, found " + std::to_string(norms));
  return norms / kLayerNorms;
}

LinearLists::LinearLists(const Call& call, size_t i, int64_t count)
    : weights_(call.elements(i, "weights", count)),
      biases_(call.elements(i + 1, "biases", count)),
      lora_a_(call.elements(i + 2, "lora_A", count)),
      lora_b_(call.elements(i + 3, "lora_B", count)) {
  call.expect_list(i + 4, "scalings", count);
  call.expect_list(i + 5, "packed", 2 * count);
  for (int64_t at = 0; at < count; at++) scalings_.push_back(float(call.number_of_list(i + 4, "scalings", at)));
  for (int64_t at = 0; at < 2 * count; at++) packed_.push_back(call.number_of_list(i + 5, "packed", at) != 0);
}

LayerLinear LinearLists::read(Call& call, int64_t i, int64_t in, int64_t out, Precision precision) const {
  LayerLinear linear{};
  linear.in = in, linear.out = out;
  if ((linear.stored = stored_element(call, weights_[size_t(i)]))) check_stored(call, matmul_operand(*linear.stored, precision), out, in);
  else if (packed_[size_t(i)]) linear.packed = packed_of(call, weights_, "weights", i, out, in, precision);
  else linear.weight = call.floats_of(weights_, "weights", i, Count{out, in}.value);
  linear.bias = call.optional_floats_of(biases_, "biases", i, out);
  if (!call.given_of(lora_b_, i)) return linear;
  int64_t length;
  linear.lora_b = call.floats_of(lora_b_, "lora_B", i, &length);
  linear.rank = length / out, linear.scaling = scalings_[size_t(i)];
  if (linear.rank < 1 || length != linear.rank * out) call.fail("lora_B: expected whole columns");
  if (packed_[weights_.size() + size_t(i)]) linear.packed_a = packed_of(call, lora_a_, "lora_A", i, linear.rank, in, precision);
  else linear.lora_a = call.floats_of(lora_a_, "lora_A", i, Count{linear.rank, in}.value);
  return linear;
}

}  // namespace blip2
