// The functions exported to JavaScript (typed in src/addon.ts). Those for matmul, attention, losses and stored weights are in
// binding_*.cc. Every length and index is checked here; kernels do not check them again.
#include "binding.h"

#include <cmath>
#include <vector>

#include "dispatch.h"
#include "thread_pool.h"

namespace blip2 {
namespace portable {
void philox_block(uint32_t* counter, uint32_t key0, uint32_t key1);
}
namespace {

// layerNorm(x, weight, bias | null, eps, y, mean | null, rstd, M, N); without bias and mean RMSNorm, here and below
void layer_norm(Call& call) {
  const int64_t M = call.size(7, "M"), N = call.size(8, "N");
  kernels().layer_norm(call.floats(0, "x", {M, N}), call.floats(1, "weight", N), call.optional_floats(2, "bias", N),
                       float(call.number(3, "eps")), call.floats(4, "y", {M, N}),
                       call.optional_floats(5, "mean", M),
                       call.floats(6, "rstd", M), M, N);
}

// layerNormGradInput(dy, x, weight, mean, rstd, dx, M, N)
void layer_norm_grad_input(Call& call) {
  const int64_t M = call.size(6, "M"), N = call.size(7, "N");
  kernels().layer_norm_grad_input(call.floats(0, "dy", {M, N}), call.floats(1, "x", {M, N}), call.floats(2, "weight", N),
                                  call.optional_floats(3, "mean", M), call.floats(4, "rstd", M),
                                  call.floats(5, "dx", {M, N}), M, N);
}

// layerNormGradWeight(dy, x, mean, rstd, dweight, M, N)
void layer_norm_grad_weight(Call& call) {
  const int64_t M = call.size(5, "M"), N = call.size(6, "N");
  kernels().layer_norm_grad_weight(call.floats(0, "dy", {M, N}), call.floats(1, "x", {M, N}),
                                   call.optional_floats(2, "mean", M), call.floats(3, "rstd", M),
                                   call.floats(4, "dweight", N), M, N);
}

// gelu(x, y)
void gelu(Call& call) {
  const int64_t n = call.length(0, "x");
  kernels().gelu(call.floats(0, "x", n), call.floats(1, "y", n), n);
}

// geluGrad(dy, x, dx)
void gelu_grad(Call& call) {
  const int64_t n = call.length(0, "dy");
  kernels().gelu_grad(call.floats(0, "dy", n), call.floats(1, "x", n), call.floats(2, "dx", n), n);
}

// gatedGelu(gate, x, y)
void gated_gelu(Call& call) {
  const int64_t n = call.length(0, "gate");
  kernels().gated_gelu(call.floats(0, "gate", n), call.floats(1, "x", n), call.floats(2, "y", n), n);
}

// gatedGeluGrad(dy, gate, x, dgate, dx)
void gated_gelu_grad(Call& call) {
  const int64_t n = call.length(0, "dy");
  kernels().gated_gelu_grad(call.floats(0, "dy", n), call.floats(1, "gate", n), call.floats(2, "x", n),
                            call.floats(3, "dgate", n), call.floats(4, "dx", n), n);
}

// relu(x, y, positive)
void relu(Call& call) {
  const int64_t n = call.length(0, "x");
  kernels().relu(call.floats(0, "x", n), call.floats(1, "y", n), call.bytes(2, "positive", n), n);
}

// reluGrad(dy, positive, dx)
void relu_grad(Call& call) {
  const int64_t n = call.length(0, "dy");
  kernels().relu_grad(call.floats(0, "dy", n), call.bytes(1, "positive", n), call.floats(2, "dx", n), n);
}

// Every element of a strided view must lie in 0 … length - 1.
void check_view(Call& call, const char* what, int rank, const int64_t* shape, const int64_t* strides, int64_t offset,
                int64_t length) {
  int64_t last = offset;
  for (int axis = 0; axis < rank; axis++)
    if (shape[axis] == 0) return;
  for (int axis = 0; axis < rank; axis++) {
    const Count step{shape[axis] - 1, strides[axis]};
    if (step.value < 0 || __builtin_add_overflow(last, step.value, &last)) last = INT64_MAX - 1;
  }
  if (last >= length)
    call.fail(std::string(what) + " has " + std::to_string(length) + " elements, expected at least " + std::to_string(last + 1));
}

Count count(int rank, const int64_t* shape) {
  Count n = 1;
  for (int axis = 0; axis < rank; axis++) n = {n.value, shape[axis]};
  for (int axis = 0; axis < rank; axis++)
    if (shape[axis] == 0) n = 0;
  return n;
}

// binary(op, a, aStrides, b, bStrides, shape, y)
void binary(Call& call) {
  BinaryCall c{};
  const int64_t op = call.size(0, "op");
  if (op > int64_t(Binary::minimum)) call.fail("op: expected 0 … 5, found " + std::to_string(op));
  c.op = Binary(op);
  c.rank = call.sizes(5, "shape", c.shape, -1);
  call.sizes(2, "aStrides", c.a_strides, c.rank);
  call.sizes(4, "bStrides", c.b_strides, c.rank);
  const Count n = count(c.rank, c.shape);
  const int64_t a_length = call.length(1, "a"), b_length = call.length(3, "b");
  check_view(call, "a", c.rank, c.shape, c.a_strides, 0, a_length);
  check_view(call, "b", c.rank, c.shape, c.b_strides, 0, b_length);
  c.a = call.floats(1, "a", a_length);
  c.b = call.floats(3, "b", b_length);
  c.y = call.floats(6, "y", n);
  if (n.value > 0) kernels().binary(c);
}

// copy(from, fromOffset, fromStrides, to, toOffset, toStrides, shape): 32-bit elements of any kind
void copy(Call& call) {
  CopyCall c{};
  c.rank = call.sizes(6, "shape", c.shape, -1);
  call.sizes(2, "fromStrides", c.from_strides, c.rank);
  call.sizes(5, "toStrides", c.to_strides, c.rank);
  const int64_t from = call.size(1, "fromOffset"), to = call.size(4, "toOffset");
  int64_t from_length, to_length;
  c.from = call.words(0, "from", &from_length);
  c.to = call.words(3, "to", &to_length);
  check_view(call, "from", c.rank, c.shape, c.from_strides, from, from_length);
  check_view(call, "to", c.rank, c.shape, c.to_strides, to, to_length);
  const Count n = count(c.rank, c.shape);
  if (n.value == 0) return;
  // With strides of 0, a small array could be written without end.
  if (n.value < 0 || n.value > to_length)
    call.fail("shape: expected at most as many elements as to has, " + std::to_string(to_length) + ", found " + n.text());
  c.from += from, c.to += to;
  kernels().copy(c);
}

// dropout(x, y, rate, key0, key1, add)
void dropout(Call& call) {
  const int64_t n = call.length(0, "x");
  const double rate = call.number(2, "rate");
  if (!(rate >= 0 && rate < 1)) call.fail("rate: expected a number in [0, 1), found " + std::to_string(rate));
  kernels().dropout(call.floats(0, "x", n), call.floats(1, "y", n), n, rate, call.word(3, "key0"), call.word(4, "key1"),
                    call.boolean(5, "add"));
}

// sumRows(x, y, M, N), sumColumns(x, y, M, N)
void sum_rows(Call& call) {
  const int64_t M = call.size(2, "M"), N = call.size(3, "N");
  const float* x = call.floats(0, "x", {M, N});
  float* y = call.floats(1, "y", N);
  if (N > 0) kernels().sum_rows(x, y, M, N);
}
void sum_columns(Call& call) {
  const int64_t M = call.size(2, "M"), N = call.size(3, "N");
  kernels().sum_columns(call.floats(0, "x", {M, N}), call.floats(1, "y", M), M, N);
}

// squaredSum([x, …], y)
void squared_sum(Call& call) {
  const auto xs = call.elements(0, "xs", call.list_length(0, "xs"));
  double sum = 0;
  for (size_t i = 0; i < xs.size(); i++) {
    int64_t n;
    const float* x = call.floats_of(xs, "xs", int64_t(i), &n);
    sum += kernels().squared_sum(x, n);
  }
  *call.floats(1, "y", 1) = float(sum);
}

// gatherRows(x, indices, y, rows, D)
void gather_rows(Call& call) {
  const int64_t rows = call.size(3, "rows"), D = call.size(4, "D"), M = call.length(1, "indices");
  const int32_t* indices = call.ints(1, "indices", M);
  call.expect_range("indices", indices, M, 0, rows);
  kernels().gather_rows(call.floats(0, "x", {rows, D}), indices, call.floats(2, "y", {M, D}), M, D);
}

// scatterAddRows(dy, indices, dx, rows, D)
void scatter_add_rows(Call& call) {
  const int64_t rows = call.size(3, "rows"), D = call.size(4, "D"), M = call.length(1, "indices");
  const int32_t* indices = call.ints(1, "indices", M);
  call.expect_range("indices", indices, M, 0, rows);
  const float* dy = call.floats(0, "dy", {M, D});
  float* dx = call.floats(2, "dx", {rows, D});
  if (rows > 0 && D > 0) kernels().scatter_add_rows(dy, indices, dx, M, D, rows);
}

// adamW([param, grad, m, v, …], [newParam, newM, newV, …], scale, weightDecays, lr, beta1, beta2, eps, c1, c2)
void adamw(Call& call) {
  const int64_t count = call.list_length(3, "weightDecays");
  const double lr = call.number(4, "lr"), beta1 = call.number(5, "beta1"), beta2 = call.number(6, "beta2");
  const auto given = call.elements(0, "tensors", 4 * count), made = call.elements(1, "made", 3 * count);
  std::vector<AdamWTensor> tensors;
  for (int64_t t = 0; t < count; t++) {
    tensors.emplace_back();
    tensors.back().decay = float(1 - lr * call.number_of_list(3, "weightDecays", t));
  }
  for (int64_t t = 0; t < count; t++) {
    AdamWTensor& to = tensors[size_t(t)];
    const auto input = [&](int64_t i) { return call.floats_of(given, "tensors", 4 * t + i, to.n); };
    const auto output = [&](int64_t i) { return call.floats_of(made, "made", 3 * t + i, to.n); };
    to.param = call.floats_of(given, "tensors", 4 * t, &to.n);
    to.grad = input(1), to.m = input(2), to.v = input(3);
    to.new_param = output(0), to.new_m = output(1), to.new_v = output(2);
  }
  AdamW h;
  h.scale = *call.floats(2, "scale", 1);
  h.from_m = 1 - beta1 < 0.5;
  h.toward = float(h.from_m ? 1 - beta1 : -beta1);
  h.beta2 = float(beta2), h.rest2 = float(1 - beta2);
  h.eps = float(call.number(7, "eps"));
  h.step = float(lr / call.number(8, "c1")), h.root2 = float(std::sqrt(call.number(9, "c2")));
  kernels().adamw(tensors.data(), count, h);
}

// philox(words Int32Array [4], key0, key1): replaces the counter by the generator's output
void philox(Call& call) {
  int32_t* words = call.ints(0, "words", 4);
  portable::philox_block(reinterpret_cast<uint32_t*>(words), call.word(1, "key0"), call.word(2, "key1"));
}

void set_thread_count(Call& call) {
  const int64_t count = call.size(0, "count");
  if (count < 1 || count > 1024) call.fail("count: expected 1 … 1024, found " + std::to_string(count));
  set_threads(int(count));
}

void set_instruction_set(Call& call) {
  const std::string name = call.text(0, "name");
  if (!use_level(name.c_str())) call.fail("name: expected an instruction set that this processor and build support, found '" + name + "'");
}

void instruction_sets(Call& call) {
  std::string names;
  for (int i = 0; i < level_count(); i++) names += (i ? " " : "") + std::string(level_name(i));
  call.give(names);
}

void instruction_set(Call& call) { call.give(kernels().level); }

}  // namespace
}  // namespace blip2

NAPI_MODULE_INIT() {
  using namespace blip2;
  define_attention(env, exports);
  define_decoder(env, exports);
  define_encoder(env, exports);
  define_matmul(env, exports);
  define_stored(env, exports);
  define_losses(env, exports);
#if defined(BLIP2_FAULTS)
  define_faults(env, exports);
#endif
  define<layer_norm>(env, exports, "layerNorm");
  define<layer_norm_grad_input>(env, exports, "layerNormGradInput");
  define<layer_norm_grad_weight>(env, exports, "layerNormGradWeight");
  define<gelu>(env, exports, "gelu");
  define<gelu_grad>(env, exports, "geluGrad");
  define<gated_gelu>(env, exports, "gatedGelu");
  define<gated_gelu_grad>(env, exports, "gatedGeluGrad");
  define<relu>(env, exports, "relu");
  define<relu_grad>(env, exports, "reluGrad");
  define<binary>(env, exports, "binary");
  define<copy>(env, exports, "copy");
  define<dropout>(env, exports, "dropout");
  define<sum_rows>(env, exports, "sumRows");
  define<sum_columns>(env, exports, "sumColumns");
  define<squared_sum>(env, exports, "squaredSum");
  define<gather_rows>(env, exports, "gatherRows");
  define<scatter_add_rows>(env, exports, "scatterAddRows");
  define<adamw>(env, exports, "adamW");
  define<philox>(env, exports, "philox");
  define<set_thread_count>(env, exports, "setThreads");
  define<set_instruction_set>(env, exports, "setInstructionSet");
  define<instruction_sets>(env, exports, "instructionSets");
  define<instruction_set>(env, exports, "instructionSet");
  return exports;
}
