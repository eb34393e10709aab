// Layers of a decoder at new positions, for generation: the kernels of their parts in one call. Exported to JavaScript (typed in
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

// What all layers have in common.
struct Sizes {
  int64_t M, D, F;
  bool norm_first;
  float eps;
  Activation activation;
  Precision precision;
};

constexpr int64_t kNorms = 4;

struct Layer {
  const float* norms[kNorms];   // weight and bias before attention, weight and bias before fc1
  LayerLinear linears[kLinears];
};

// Memory for the intermediate results of a layer; the next one uses it again.
struct Scratch {
  std::unique_ptr<float[]> floats;
  std::unique_ptr<uint8_t[]> positive;
  float *h, *q, *attended, *sum, *f, *low, *statistics;

  Scratch(const Sizes& l, const std::vector<Layer>& layers) {
    int64_t rank = 0;
    for (const Layer& layer : layers)
      for (const LayerLinear& linear : layer.linears) rank = linear.rank > rank ? linear.rank : rank;
    floats.reset(new float[size_t(l.M * (4 * l.D + l.F + rank + 2))]);
    positive.reset(new uint8_t[size_t(l.M * l.F)]);
    float* at = floats.get();
    const auto take = [&](int64_t columns) { return std::exchange(at, at + l.M * columns); };
    h = take(l.D), q = take(l.D), attended = take(l.D), sum = take(l.D), f = take(l.F), low = take(rank), statistics = take(2);
  }
};

void times(const LayerLinear& l, const Sizes& sizes, const float* x, const Epilogue& epilogue, float* y) {
  if (l.stored) return times_stored(x, sizes.M, matmul_operand(*l.stored, sizes.precision), true, epilogue, y, sizes.precision);
  matmul_kernels(sizes.precision)
      .gemm({sizes.M, l.out, l.in, {x, l.in, 1}, {l.weight, 1, l.in}, epilogue, y, l.out, false, l.packed});
}

void apply(const LayerLinear& l, const Sizes& sizes, const Scratch& scratch, const float* x, const float* residual, float* y) {
  times(l, sizes, x, {l.bias, Activation::none, residual}, y);
  if (l.rank == 0) return;
  const MatmulKernels& matmul = matmul_kernels(sizes.precision);
  matmul.gemm({sizes.M, l.rank, l.in, {x, l.in, 1}, {l.lora_a, 1, l.in}, {}, scratch.low, l.rank, false, l.packed_a});
  for (int64_t i = 0; i < sizes.M * l.rank; i++) scratch.low[i] *= l.scaling;
  matmul.gemm({sizes.M, l.out, l.rank, {scratch.low, l.rank, 1}, {l.lora_b, 1, l.rank}, {}, y, l.out, true});
}

// fc1 and its activation, which is applied after an adapter has been added.
void activated(const LayerLinear& fc1, const Sizes& l, const Scratch& s, const float* x) {
  if (fc1.rank == 0) return times(fc1, l, x, {fc1.bias, l.activation}, s.f);
  apply(fc1, l, s, x, nullptr, s.f);
  if (l.activation == Activation::gelu) kernels().gelu(s.f, s.f, l.M * l.F);
  else kernels().relu(s.f, s.f, s.positive.get(), l.M * l.F);
}

// x, k, v and y are [M, D], and y may be x; k and v, which are written, are the last keys and values of `attention`.
void run(const Layer& layer, const Sizes& l, const Scratch& s, PagedAttention& attention, const float* x, float* k, float* v, float* y) {
  const auto norm = [&](const float* from, int i, float* to) {
    kernels().layer_norm(from, layer.norms[i], layer.norms[i + 1], l.eps, to, s.statistics, s.statistics + l.M, l.M, l.D);
    return to;
  };
  const float* h = l.norm_first ? norm(x, 0, s.h) : x;
  apply(layer.linears[kQ], l, s, h, nullptr, s.q);
  apply(layer.linears[kK], l, s, h, nullptr, k);
  apply(layer.linears[kV], l, s, h, nullptr, v);
  attention.q = s.q, attention.out = s.attended;
  kernels().paged_attention(attention);
  apply(layer.linears[kOut], l, s, s.attended, x, s.sum);
  if (!l.norm_first) norm(s.sum, 0, s.sum);
  activated(layer.linears[kFc1], l, s, l.norm_first ? norm(s.sum, 2, s.h) : s.sum);
  apply(layer.linears[kFc2], l, s, s.f, s.sum, y);
  if (!l.norm_first) norm(y, 2, y);
}

// Argument i: the sizes [B, T, D, F, numHeads].
Sizes layer_sizes(Call& call, PagedAttention& a) {
  int64_t sizes[kMaxRank];
  call.sizes(0, "sizes", sizes, 5);
  a.B = sizes[0], a.Tq = sizes[1], a.D = sizes[2], a.H = sizes[4];
  check_heads(call, a.D, a.H);
  Sizes l{};
  const Count rows{a.B, a.Tq}, wide{a.B, a.Tq, a.D}, wider{a.B, a.Tq, sizes[3]};
  if (wide.value <= 0 || wider.value <= 0) call.fail("sizes: expected at least one position, and widths that fit in memory");
  l.M = rows.value, l.D = a.D, l.F = sizes[3];
  return l;
}

// Argument lists about the linears of all layers: elements are read before pointers.
struct LinearLists {
  std::vector<napi_value> weights, biases, lora_a, lora_b;
  std::vector<bool> packed;   // of weights, then of lora_a
  std::vector<float> scalings;

  LinearLists(const Call& call, size_t i, int64_t count)
      : weights(call.elements(i, "weights", count)),
        biases(call.elements(i + 1, "biases", count)),
        lora_a(call.elements(i + 2, "lora_A", count)),
        lora_b(call.elements(i + 3, "lora_B", count)) {
    call.expect_list(i + 4, "scalings", count);
    call.expect_list(i + 5, "packed", 2 * count);
    for (int64_t at = 0; at < count; at++) scalings.push_back(float(call.number_of_list(i + 4, "scalings", at)));
    for (int64_t at = 0; at < 2 * count; at++) packed.push_back(call.number_of_list(i + 5, "packed", at) != 0);
  }
};

// Entry i of the lists, a linear from `in` to `out` columns.
LayerLinear read_linear(Call& call, const LinearLists& lists, int64_t i, int64_t in, int64_t out, Precision precision) {
  LayerLinear linear{};
  linear.in = in, linear.out = out;
  if ((linear.stored = stored_element(call, lists.weights[size_t(i)])))
    check_stored(call, matmul_operand(*linear.stored, precision), out, in);
  else if (lists.packed[size_t(i)]) linear.packed = packed_of(call, lists.weights, "weights", i, out, in, precision);
  else linear.weight = call.floats_of(lists.weights, "weights", i, Count{out, in}.value);
  linear.bias = call.optional_floats_of(lists.biases, "biases", i, out);
  if (!call.given_of(lists.lora_b, i)) return linear;
  int64_t length;
  linear.lora_b = call.floats_of(lists.lora_b, "lora_B", i, &length);
  linear.rank = length / out, linear.scaling = lists.scalings[size_t(i)];
  if (linear.rank < 1 || length != linear.rank * out) call.fail("lora_B: expected whole columns");
  if (lists.packed[lists.weights.size() + size_t(i)]) linear.packed_a = packed_of(call, lists.lora_a, "lora_A", i, linear.rank, in, precision);
  else linear.lora_a = call.floats_of(lists.lora_a, "lora_A", i, Count{linear.rank, in}.value);
  return linear;
}

std::vector<Layer> read_layers(Call& call, const std::vector<napi_value>& norms, const LinearLists& lists, const Sizes& sizes) {
  std::vector<Layer> layers(norms.size() / kNorms);
  for (size_t i = 0; i < norms.size(); i++)
    layers[i / kNorms].norms[i % kNorms] = call.floats_of(norms, "norms", int64_t(i), sizes.D);
  for (size_t i = 0; i < lists.weights.size(); i++) {
    const size_t at = i % kLinears;
    const int64_t in = at == kFc2 ? sizes.F : sizes.D, out = at == kFc1 ? sizes.F : sizes.D;
    layers[i / kLinears].linears[at] = read_linear(call, lists, int64_t(i), in, out, sizes.precision);
  }
  return layers;
}

// The number of layers, by argument 2, their norms.
int64_t layer_count(const Call& call) {
  const int64_t norms = call.list_length(2, "norms");
  if (norms == 0 || norms % kNorms != 0) call.fail("norms: expected four for each layer, found " + std::to_string(norms));
  return norms / kNorms;
}

// decoderLayers(sizes, x, norms, eps, normFirst, activation, weights, biases, lora_A, lora_B, scalings, packed,
// scale, lengths, ks, vs, rows, keyMask | null, newKs, newVs, y, precision). Lists have layer after layer. Linears are q, k, v, out, fc1 and
// fc2; their weights are arrays, packed arrays or handles, and what they do not have is null.
void decoder_layers(Call& call) {
  PagedAttention a{};
  Sizes sizes = layer_sizes(call, a);
  const int64_t L = layer_count(call);
  const std::vector<napi_value> norms = call.elements(2, "norms", kNorms * L);
  const LinearLists lists(call, 6, kLinears * L);
  Pages pages(call, 13, L);
  const std::vector<napi_value> ks = call.elements(18, "newKs", L), vs = call.elements(19, "newVs", L);
  sizes.eps = float(call.number(3, "eps")), sizes.norm_first = call.boolean(4, "normFirst");
  sizes.activation = activation_argument(call, 5), sizes.precision = call.precision(21);
  const std::vector<Layer> layers = read_layers(call, norms, lists, sizes);
  const Count all{sizes.M, sizes.D};
  const float* x = call.floats(1, "x", all);
  float* y = call.floats(20, "y", all);
  a.causal = true, a.scale = float(call.number(12, "scale"));
  a.Tk = pages.check(call, a) + a.Tq;
  a.key_mask = call.optional_floats(17, "keyMask", {a.B, a.Tk});
  for (int64_t i = 0; i < L; i++) call.floats_of(ks, "newKs", i, all.value), call.floats_of(vs, "newVs", i, all.value);
  PageRows rows(a);
  a.k = rows.k.data(), a.v = rows.v.data();
  const Scratch scratch(sizes, layers);
  for (int64_t i = 0; i < L; i++) {
    float *k = call.floats_of(ks, "newKs", i, all.value), *v = call.floats_of(vs, "newVs", i, all.value);
    rows.find(pages, size_t(i), a, k, v);
    run(layers[size_t(i)], sizes, scratch, a, i == 0 ? x : y, k, v, y);
  }
}

}  // namespace

void define_decoder(napi_env env, napi_value exports) { define<decoder_layers>(env, exports, "decoderLayers"); }

}  // namespace blip2
