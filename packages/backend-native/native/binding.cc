// The functions that JavaScript sees (typed in src/addon.ts); those of the matrix product are in binding_products.cc.
// Every length and index is checked here; kernels trust them.
#include "binding.h"

#include "dispatch.h"
#include "thread_pool.h"

namespace blip2 {
namespace portable {
void philox_block(uint32_t* counter, uint32_t key0, uint32_t key1);
}
namespace {

// Arguments 0 … 12: B, Tq, Tk, D, H, scale, causal, dropout, key0, key1, q, k, v; 13 keyMask | null.
Attention attention_call(Call& call) {
  Attention a{};
  a.B = call.size(0, "B"), a.Tq = call.size(1, "Tq"), a.Tk = call.size(2, "Tk"), a.D = call.size(3, "D");
  a.H = call.size(4, "numHeads");
  if (a.H < 1 || a.D % a.H != 0)
    call.fail("numHeads must divide the width " + std::to_string(a.D) + ", got " + std::to_string(a.H));
  a.scale = float(call.number(5, "scale"));
  a.causal = call.boolean(6, "causal");
  a.dropout = float(call.number(7, "dropoutRate"));
  a.key0 = call.word(8, "key0"), a.key1 = call.word(9, "key1");
  a.q = call.floats(10, "q", a.B * a.Tq * a.D);
  a.k = call.floats(11, "k", a.B * a.Tk * a.D);
  a.v = call.floats(12, "v", a.B * a.Tk * a.D);
  a.key_mask = call.optional_floats(13, "keyMask", a.B * a.Tk);
  return a;
}

// …, 14 out, 15 lse
void attention(Call& call) {
  Attention a = attention_call(call);
  a.out = call.floats(14, "out", a.B * a.Tq * a.D);
  a.lse = call.floats(15, "lse", a.B * a.H * a.Tq);
  kernels().attention(a);
}

// …, 14 out, 15 lse, 16 dout, 17 dq, 18 dk, 19 dv
void attention_grad(Call& call) {
  Attention a = attention_call(call);
  a.out = call.floats(14, "out", a.B * a.Tq * a.D);
  a.lse = call.floats(15, "lse", a.B * a.H * a.Tq);
  a.dout = call.floats(16, "dout", a.B * a.Tq * a.D);
  a.dq = call.floats(17, "dq", a.B * a.Tq * a.D);
  a.dk = call.floats(18, "dk", a.B * a.Tk * a.D);
  a.dv = call.floats(19, "dv", a.B * a.Tk * a.D);
  kernels().attention_grad(a);
}

// layerNorm(x, weight, bias, eps, y, mean, rstd, M, N)
void layer_norm(Call& call) {
  const int64_t M = call.size(7, "M"), N = call.size(8, "N");
  kernels().layer_norm(call.floats(0, "x", M * N), call.floats(1, "weight", N), call.floats(2, "bias", N),
                       float(call.number(3, "eps")), call.floats(4, "y", M * N), call.floats(5, "mean", M),
                       call.floats(6, "rstd", M), M, N);
}

// layerNormGradInput(dy, x, weight, mean, rstd, dx, M, N)
void layer_norm_grad_input(Call& call) {
  const int64_t M = call.size(6, "M"), N = call.size(7, "N");
  kernels().layer_norm_grad_input(call.floats(0, "dy", M * N), call.floats(1, "x", M * N), call.floats(2, "weight", N),
                                  call.floats(3, "mean", M), call.floats(4, "rstd", M), call.floats(5, "dx", M * N), M,
                                  N);
}

// layerNormGradWeight(dy, x, mean, rstd, dweight, M, N)
void layer_norm_grad_weight(Call& call) {
  const int64_t M = call.size(5, "M"), N = call.size(6, "N");
  kernels().layer_norm_grad_weight(call.floats(0, "dy", M * N), call.floats(1, "x", M * N), call.floats(2, "mean", M),
                                   call.floats(3, "rstd", M), call.floats(4, "dweight", N), M, N);
}

// gelu(x, y), relu(x, y)
template <void (*Kernels::*kernel)(const float*, float*, int64_t)>
void unary(Call& call) {
  const int64_t n = call.length(0, "x");
  (kernels().*kernel)(call.floats(0, "x", n), call.floats(1, "y", n), n);
}

// geluGrad(dy, x, dx), reluGrad(dy, y, dx)
template <void (*Kernels::*kernel)(const float*, const float*, float*, int64_t)>
void unary_grad(Call& call) {
  const int64_t n = call.length(0, "dy");
  (kernels().*kernel)(call.floats(0, "dy", n), call.floats(1, "x or y", n), call.floats(2, "dx", n), n);
}

// Every element of a strided view must lie in 0 … length - 1.
void check_view(Call& call, const char* what, int rank, const int64_t* shape, const int64_t* strides, int64_t offset,
                int64_t length) {
  int64_t last = offset;
  for (int axis = 0; axis < rank; axis++) {
    if (shape[axis] == 0) return;
    last += (shape[axis] - 1) * strides[axis];
  }
  if (last >= length)
    call.fail(std::string(what) + " has " + std::to_string(length) + " elements, but element " + std::to_string(last) +
              " is asked for");
}

int64_t count(int rank, const int64_t* shape) {
  int64_t n = 1;
  for (int axis = 0; axis < rank; axis++) n *= shape[axis];
  return n;
}

// binary(op, a, aStrides, b, bStrides, shape, y)
void binary(Call& call) {
  BinaryCall c{};
  const int64_t op = call.size(0, "op");
  if (op > int64_t(Binary::minimum)) call.fail("op must be 0 … 5, got " + std::to_string(op));
  c.op = Binary(op);
  c.rank = call.sizes(5, "shape", c.shape, -1);
  call.sizes(2, "aStrides", c.a_strides, c.rank);
  call.sizes(4, "bStrides", c.b_strides, c.rank);
  const int64_t n = count(c.rank, c.shape), a_length = call.length(1, "a"), b_length = call.length(3, "b");
  check_view(call, "a", c.rank, c.shape, c.a_strides, 0, a_length);
  check_view(call, "b", c.rank, c.shape, c.b_strides, 0, b_length);
  c.a = call.floats(1, "a", a_length);
  c.b = call.floats(3, "b", b_length);
  c.y = call.floats(6, "y", n);
  if (n > 0) kernels().binary(c);
}

// copy(from, fromOffset, fromStrides, to, toOffset, toStrides, shape): 32-bit elements of any kind
void copy(Call& call) {
  CopyCall c{};
  c.rank = call.sizes(6, "shape", c.shape, -1);
  call.sizes(2, "fromStrides", c.from_strides, c.rank);
  call.sizes(5, "toStrides", c.to_strides, c.rank);
  const int64_t from = call.size(1, "fromOffset"), to = call.size(4, "toOffset");
  int64_t from_length, to_length;
  c.from = call.words(0, "from", &from_length) + from;
  c.to = call.words(3, "to", &to_length) + to;
  check_view(call, "from", c.rank, c.shape, c.from_strides, from, from_length);
  check_view(call, "to", c.rank, c.shape, c.to_strides, to, to_length);
  if (count(c.rank, c.shape) > 0) kernels().copy(c);
}

// dropout(x, y, rate, key0, key1)
void dropout(Call& call) {
  const int64_t n = call.length(0, "x");
  const double rate = call.number(2, "rate");
  if (!(rate >= 0 && rate < 1)) call.fail("rate must be in [0, 1), got " + std::to_string(rate));
  kernels().dropout(call.floats(0, "x", n), call.floats(1, "y", n), n, float(rate), call.word(3, "key0"),
                    call.word(4, "key1"));
}

// sumRows(x, y, M, N), sumColumns(x, y, M, N)
void sum_rows(Call& call) {
  const int64_t M = call.size(2, "M"), N = call.size(3, "N");
  kernels().sum_rows(call.floats(0, "x", M * N), call.floats(1, "y", N), M, N);
}
void sum_columns(Call& call) {
  const int64_t M = call.size(2, "M"), N = call.size(3, "N");
  kernels().sum_columns(call.floats(0, "x", M * N), call.floats(1, "y", M), M, N);
}

// squaredSum(x, y)
void squared_sum(Call& call) {
  const int64_t n = call.length(0, "x");
  *call.floats(1, "y", 1) = float(kernels().squared_sum(call.floats(0, "x", n), n));
}

void check_below(Call& call, const char* what, const int32_t* values, int64_t n, int64_t low, int64_t limit) {
  for (int64_t i = 0; i < n; i++)
    if (values[i] < low || values[i] >= limit)
      call.fail(std::string(what) + "[" + std::to_string(i) + "] must be " + (low < 0 ? "below " : "in 0 … ") +
                std::to_string(low < 0 ? limit : limit - 1) + ", got " + std::to_string(values[i]));
}

// gatherRows(x, indices, y, rows, D)
void gather_rows(Call& call) {
  const int64_t rows = call.size(3, "rows"), D = call.size(4, "D"), M = call.length(1, "indices");
  const int32_t* indices = call.ints(1, "indices", M);
  check_below(call, "indices", indices, M, 0, rows);
  kernels().gather_rows(call.floats(0, "x", rows * D), indices, call.floats(2, "y", M * D), M, D);
}

// scatterAddRows(dy, indices, dx, rows, D)
void scatter_add_rows(Call& call) {
  const int64_t rows = call.size(3, "rows"), D = call.size(4, "D"), M = call.length(1, "indices");
  const int32_t* indices = call.ints(1, "indices", M);
  check_below(call, "indices", indices, M, 0, rows);
  kernels().scatter_add_rows(call.floats(0, "dy", M * D), indices, call.floats(2, "dx", rows * D), M, D, rows);
}

// crossEntropy(logits, labels, labelSmoothing, loss, lse, M, V)
void cross_entropy(Call& call) {
  const int64_t M = call.size(5, "M"), V = call.size(6, "V");
  const int32_t* labels = call.ints(1, "labels", M);
  check_below(call, "labels", labels, M, INT32_MIN, V);
  kernels().cross_entropy(call.floats(0, "logits", M * V), labels, float(call.number(2, "labelSmoothing")),
                          call.floats(3, "loss", 1), call.floats(4, "lse", M), M, V);
}

// crossEntropyGrad(logits, labels, lse, dloss, labelSmoothing, dlogits, M, V)
void cross_entropy_grad(Call& call) {
  const int64_t M = call.size(6, "M"), V = call.size(7, "V");
  const int32_t* labels = call.ints(1, "labels", M);
  check_below(call, "labels", labels, M, INT32_MIN, V);
  kernels().cross_entropy_grad(call.floats(0, "logits", M * V), labels, call.floats(2, "lse", M),
                               *call.floats(3, "dloss", 1), float(call.number(4, "labelSmoothing")),
                               call.floats(5, "dlogits", M * V), M, V);
}

// adamW(param, grad, m, v, scale, newParam, newM, newV, lr, beta1, beta2, eps, weightDecay, c1, c2)
void adamw(Call& call) {
  const int64_t n = call.length(0, "param");
  AdamW h;
  h.scale = *call.floats(4, "scale", 1);
  h.lr = float(call.number(8, "lr"));
  h.beta1 = float(call.number(9, "beta1")), h.beta2 = float(call.number(10, "beta2"));
  h.eps = float(call.number(11, "eps"));
  h.weight_decay = float(call.number(12, "weightDecay"));
  h.c1 = float(call.number(13, "c1")), h.c2 = float(call.number(14, "c2"));
  kernels().adamw(call.floats(0, "param", n), call.floats(1, "grad", n), call.floats(2, "m", n),
                  call.floats(3, "v", n), call.floats(5, "newParam", n), call.floats(6, "newM", n),
                  call.floats(7, "newV", n), n, h);
}

// philox(words Int32Array [4], key0, key1): replaces the counter by its output
void philox(Call& call) {
  int32_t* words = call.ints(0, "words", 4);
  portable::philox_block(reinterpret_cast<uint32_t*>(words), call.word(1, "key0"), call.word(2, "key1"));
}

void set_thread_count(Call& call) {
  const int64_t count = call.size(0, "count");
  if (count < 1 || count > 1024) call.fail("count must be in 1 … 1024, got " + std::to_string(count));
  set_threads(int(count));
}

void set_instruction_set(Call& call) {
  const std::string name = call.text(0, "name");
  if (!use_level(name.c_str())) call.fail("this machine or build has no instruction set '" + name + "'");
}

void instruction_sets(Call& call) {
  std::string names;
  for (int i = 0; i < level_count(); i++) names += (i ? " " : "") + std::string(level_name(i));
  call.give(names);
}

void instruction_set(Call& call) { call.give(kernels().name); }

}  // namespace
}  // namespace blip2

NAPI_MODULE_INIT() {
  using namespace blip2;
  define_products(env, exports);
  define_stored(env, exports);
  define<attention>(env, exports, "attention");
  define<attention_grad>(env, exports, "attentionGrad");
  define<layer_norm>(env, exports, "layerNorm");
  define<layer_norm_grad_input>(env, exports, "layerNormGradInput");
  define<layer_norm_grad_weight>(env, exports, "layerNormGradWeight");
  define<unary<&Kernels::gelu>>(env, exports, "gelu");
  define<unary_grad<&Kernels::gelu_grad>>(env, exports, "geluGrad");
  define<unary<&Kernels::relu>>(env, exports, "relu");
  define<unary_grad<&Kernels::relu_grad>>(env, exports, "reluGrad");
  define<binary>(env, exports, "binary");
  define<copy>(env, exports, "copy");
  define<dropout>(env, exports, "dropout");
  define<sum_rows>(env, exports, "sumRows");
  define<sum_columns>(env, exports, "sumColumns");
  define<squared_sum>(env, exports, "squaredSum");
  define<gather_rows>(env, exports, "gatherRows");
  define<scatter_add_rows>(env, exports, "scatterAddRows");
  define<cross_entropy>(env, exports, "crossEntropy");
  define<cross_entropy_grad>(env, exports, "crossEntropyGrad");
  define<adamw>(env, exports, "adamW");
  define<philox>(env, exports, "philox");
  define<set_thread_count>(env, exports, "setThreads");
  define<set_instruction_set>(env, exports, "setInstructionSet");
  define<instruction_sets>(env, exports, "instructionSets");
  define<instruction_set>(env, exports, "instructionSet");
  return exports;
}
