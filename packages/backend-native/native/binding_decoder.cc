// One layer of a decoder at new positions, for generation: the kernels of its parts in one call. Exported to JavaScript (typed in
// src/addon.ts). The results are those of the separate calls, bit for bit.
#include <memory>
#include <utility>
#include <vector>

#include "binding.h"
#include "dispatch.h"
#include "pages.h"

namespace blip2 {
namespace {

// y = x · weightᵀ + bias, and with a rank + scaling · (x · lora_Aᵀ) · lora_Bᵀ.
struct LayerLinear {
  int64_t in, out, rank;
  const StoredWeight* stored;
  const float *weight, *packed, *bias;   // one of stored, weight and packed is given
  const float *lora_a, *packed_a, *lora_b;
  float scaling;
};

enum { kQ, kK, kV, kOut, kFc1, kFc2, kLinears };

struct Layer {
  int64_t M, D, F;
  bool norm_first;
  float eps;
  Activation activation;
  Precision precision;
  const float* norms[4];   // weight and bias before attention, weight and bias before fc1
  LayerLinear linears[kLinears];
};

// Memory for the intermediate results of a layer.
struct Scratch {
  std::unique_ptr<float[]> floats;
  std::unique_ptr<uint8_t[]> positive;
  float *h, *q, *attended, *sum, *f, *low, *statistics;

  explicit Scratch(const Layer& l) {
    int64_t rank = 0;
    for (const LayerLinear& linear : l.linears) rank = linear.rank > rank ? linear.rank : rank;
    floats.reset(new float[size_t(l.M * (4 * l.D + l.F + rank + 2))]);
    positive.reset(new uint8_t[size_t(l.M * l.F)]);
    float* at = floats.get();
    const auto take = [&](int64_t columns) { return std::exchange(at, at + l.M * columns); };
    h = take(l.D), q = take(l.D), attended = take(l.D), sum = take(l.D), f = take(l.F), low = take(rank), statistics = take(2);
  }
};

void times(const LayerLinear& l, const Layer& layer, const float* x, const Epilogue& epilogue, float* y) {
  if (l.stored) return times_stored(x, layer.M, matmul_operand(*l.stored, layer.precision), true, epilogue, y, layer.precision);
  matmul_kernels(layer.precision)
      .gemm({layer.M, l.out, l.in, {x, l.in, 1}, {l.weight, 1, l.in}, epilogue, y, l.out, false, l.packed});
}

void apply(const LayerLinear& l, const Layer& layer, const Scratch& scratch, const float* x, const float* residual, float* y) {
  times(l, layer, x, {l.bias, Activation::none, residual}, y);
  if (l.rank == 0) return;
  const MatmulKernels& matmul = matmul_kernels(layer.precision);
  matmul.gemm({layer.M, l.rank, l.in, {x, l.in, 1}, {l.lora_a, 1, l.in}, {}, scratch.low, l.rank, false, l.packed_a});
  for (int64_t i = 0; i < layer.M * l.rank; i++) scratch.low[i] *= l.scaling;
  matmul.gemm({layer.M, l.out, l.rank, {scratch.low, l.rank, 1}, {l.lora_b, 1, l.rank}, {}, y, l.out, true});
}

// fc1 and its activation, which is applied after an adapter has been added.
void activated(const Layer& l, const Scratch& s, const float* x) {
  const LayerLinear& fc1 = l.linears[kFc1];
  if (fc1.rank == 0) return times(fc1, l, x, {fc1.bias, l.activation}, s.f);
  apply(fc1, l, s, x, nullptr, s.f);
  if (l.activation == Activation::gelu) kernels().gelu(s.f, s.f, l.M * l.F);
  else kernels().relu(s.f, s.f, s.positive.get(), l.M * l.F);
}

// x, k, v and y are [M, D]; k and v, which are written, are the last keys and values of `attention`.
void run(const Layer& l, PagedAttention& attention, const float* x, float* k, float* v, float* y) {
  const Scratch s(l);
  const auto norm = [&](const float* from, int i, float* to) {
    kernels().layer_norm(from, l.norms[i], l.norms[i + 1], l.eps, to, s.statistics, s.statistics + l.M, l.M, l.D);
    return to;
  };
  const float* h = l.norm_first ? norm(x, 0, s.h) : x;
  apply(l.linears[kQ], l, s, h, nullptr, s.q);
  apply(l.linears[kK], l, s, h, nullptr, k);
  apply(l.linears[kV], l, s, h, nullptr, v);
  attention.q = s.q, attention.out = s.attended;
  kernels().paged_attention(attention);
  apply(l.linears[kOut], l, s, s.attended, x, s.sum);
  if (!l.norm_first) norm(s.sum, 0, s.sum);
  activated(l, s, l.norm_first ? norm(s.sum, 2, s.h) : s.sum);
  apply(l.linears[kFc2], l, s, s.f, s.sum, y);
  if (!l.norm_first) norm(y, 2, y);
}

// Argument i: the sizes [B, T, D, F, numHeads].
Layer layer_sizes(Call& call, PagedAttention& a) {
  int64_t sizes[kMaxRank];
  call.sizes(0, "sizes", sizes, 5);
  a.B = sizes[0], a.Tq = sizes[1], a.D = sizes[2], a.H = sizes[4];
  check_heads(call, a.D, a.H);
  Layer l{};
  const Count rows{a.B, a.Tq}, wide{a.B, a.Tq, a.D}, wider{a.B, a.Tq, sizes[3]};
  if (wide.value <= 0 || wider.value <= 0) call.fail("sizes: expected at least one position, and widths that fit in memory");
  l.M = rows.value, l.D = a.D, l.F = sizes[3];
  return l;
}

// Argument lists of decoderLayer: elements are read before pointers.
struct LinearLists {
  std::vector<napi_value> weights, biases, lora_a, lora_b;
  bool packed[2 * kLinears];   // of weights, then of lora_a
  float scalings[kLinears];

  LinearLists(const Call& call, size_t i)
      : weights(call.elements(i, "weights", kLinears)),
        biases(call.elements(i + 1, "biases", kLinears)),
        lora_a(call.elements(i + 2, "lora_A", kLinears)),
        lora_b(call.elements(i + 3, "lora_B", kLinears)) {
    call.expect_list(i + 4, "scalings", kLinears);
    call.expect_list(i + 5, "packed", 2 * kLinears);
    for (int64_t at = 0; at < kLinears; at++) scalings[at] = float(call.number_of_list(i + 4, "scalings", at));
    for (int64_t at = 0; at < 2 * kLinears; at++) packed[at] = call.number_of_list(i + 5, "packed", at) != 0;
  }
};

void read_linears(Call& call, const LinearLists& lists, Layer& l) {
  for (int64_t i = 0; i < kLinears; i++) {
    LayerLinear& linear = l.linears[i];
    linear.in = i == kFc2 ? l.F : l.D, linear.out = i == kFc1 ? l.F : l.D;
    if ((linear.stored = stored_element(call, lists.weights[size_t(i)])))
      check_stored(call, matmul_operand(*linear.stored, l.precision), linear.out, linear.in);
    else if (lists.packed[i]) linear.packed = packed_of(call, lists.weights, "weights", i, linear.out, linear.in, l.precision);
    else linear.weight = call.floats_of(lists.weights, "weights", i, Count{linear.out, linear.in}.value);
    linear.bias = call.optional_floats_of(lists.biases, "biases", i, linear.out);
    if (!call.given_of(lists.lora_b, i)) continue;
    int64_t length;
    linear.lora_b = call.floats_of(lists.lora_b, "lora_B", i, &length);
    linear.rank = length / linear.out, linear.scaling = lists.scalings[i];
    if (linear.rank < 1 || length != linear.rank * linear.out) call.fail("lora_B: expected whole columns");
    if (lists.packed[kLinears + i]) linear.packed_a = packed_of(call, lists.lora_a, "lora_A", i, linear.rank, linear.in, l.precision);
    else linear.lora_a = call.floats_of(lists.lora_a, "lora_A", i, Count{linear.rank, linear.in}.value);
  }
}

// decoderLayer(sizes, x, norms, eps, normFirst, activation, weights, biases, lora_A, lora_B, scalings, packed,
// scale, lengths, ks, vs, rows, keyMask | null, k, v, y, precision). Linears are q, k, v, out, fc1 and fc2; their weights are arrays, packed
// arrays or handles, and what they do not have is null.
void decoder_layer(Call& call) {
  PagedAttention a{};
  Layer l = layer_sizes(call, a);
  const std::vector<napi_value> norms = call.elements(2, "norms", 4);
  const LinearLists lists(call, 6);
  const Pages pages(call, 13);
  l.eps = float(call.number(3, "eps")), l.norm_first = call.boolean(4, "normFirst");
  l.activation = activation_argument(call, 5), l.precision = call.precision(21);
  for (int64_t i = 0; i < 4; i++) l.norms[i] = call.floats_of(norms, "norms", i, l.D);
  read_linears(call, lists, l);
  const Count all{l.M, l.D};
  const float* x = call.floats(1, "x", all);
  float *k = call.floats(18, "k", all), *v = call.floats(19, "v", all), *y = call.floats(20, "y", all);
  a.causal = true, a.scale = float(call.number(12, "scale"));
  a.Tk = pages.check(call, a) + a.Tq;
  a.key_mask = call.optional_floats(17, "keyMask", {a.B, a.Tk});
  const PageRows rows(call, pages, a, k, v);
  a.k = rows.k.data(), a.v = rows.v.data();
  run(l, a, x, k, v, y);
}

}  // namespace

void define_decoder(napi_env env, napi_value exports) { define<decoder_layer>(env, exports, "decoderLayer"); }

}  // namespace blip2
