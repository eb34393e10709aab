// Layers of a decoder at new positions, for generation: the kernels of their parts in one call. Exported to JavaScript (typed in
// src/addon.ts). The results are those of the separate calls, bit for bit.
#include <memory>
#include <utility>
#include <vector>

#include "layers.h"
#include "pages.h"

namespace blip2 {
namespace {

enum { kQ, kK, kV, kOut, kFc1, kFc2, kLinears };

using DecoderLayer = Layer<kLinears>;

// Memory for the intermediate results of a layer; the next one uses it again.
struct Scratch {
  std::unique_ptr<float[]> floats;
  float *h, *q, *attended, *sum, *f, *low, *statistics, *lse;

  Scratch(const LayerSizes& l, int64_t heads, int64_t rank) {
    floats.reset(new float[size_t(l.M * (4 * l.D + l.F + rank + 2 + heads))]);
    float* at = floats.get();
    const auto take = [&](int64_t columns) { return std::exchange(at, at + l.M * columns); };
    h = take(l.D), q = take(l.D), attended = take(l.D), sum = take(l.D), f = take(l.F), low = take(rank);
    statistics = take(2), lse = take(heads);
  }
};

// The layers of one call.
struct Decoder {
  const LayerSizes& sizes;
  bool norm_first;
  PagedAttention& attention;
  const Scratch& scratch;

  // x, k, v and y are [M, D], and y may be x; k and v, which are written, are the last keys and values of `attention`.
  void run(const DecoderLayer& layer, const float* x, float* k, float* v, float* y) const {
    const Scratch& s = scratch;
    const auto norm = [&](const float* from, int i, float* to) {
      kernels().layer_norm(from, layer.norms[i], layer.norms[i + 1], sizes.eps, to, s.statistics, s.statistics + sizes.M, sizes.M,
                           sizes.D);
      return to;
    };
    const float* h = norm_first ? norm(x, 0, s.h) : x;
    apply(layer.linears[kQ], sizes, h, nullptr, s.low, s.q);
    apply(layer.linears[kK], sizes, h, nullptr, s.low, k);
    apply(layer.linears[kV], sizes, h, nullptr, s.low, v);
    attend(k, v);
    apply(layer.linears[kOut], sizes, s.attended, x, s.low, s.sum);
    if (!norm_first) norm(s.sum, 0, s.sum);
    activated(layer.linears[kFc1], sizes, norm_first ? norm(s.sum, 2, s.h) : s.sum, s.low, s.f);
    apply(layer.linears[kFc2], sizes, s.f, s.sum, s.low, y);
    if (!norm_first) norm(y, 2, y);
  }

 private:
  // Attention to the pages and the new positions; without pages, that of NnAttention.
  void attend(const float* k, const float* v) const {
    attention.q = scratch.q, attention.out = scratch.attended;
    if (attention.Tk > attention.Tq) return kernels().paged_attention(attention);
    Attention a{};
    a.B = attention.B, a.Tq = a.Tk = attention.Tq, a.D = a.stride = attention.D, a.H = attention.H;
    a.q = attention.q, a.k = k, a.v = v, a.key_mask = attention.key_mask;
    a.scale = attention.scale, a.causal = true, a.out = attention.out, a.lse = scratch.lse;
    attention_kernels(sizes.precision).forward(a);
  }
};

// The arrays of a list, each of `length` elements.
std::vector<float*> arrays_of(const Call& call, const std::vector<napi_value>& list, const char* what, int64_t length) {
  std::vector<float*> arrays;
  for (size_t i = 0; i < list.size(); i++) arrays.push_back(call.floats_of(list, what, int64_t(i), length));
  return arrays;
}

// decoderLayers(sizes, x, norms, eps, normFirst, activation, weights, biases, lora_A, lora_B, scalings, packed,
// scale, lengths, ks, vs, rows, keyMask | null, newKs, newVs, y, precision). Lists have layer after layer. Linears are q, k, v, out, fc1 and
// fc2; their weights are arrays, packed arrays or handles, and what they do not have is null.
void decoder_layers(Call& call) {
  PagedAttention a{};
  LayerSizes sizes = layer_sizes(call, 0, a);
  const int64_t L = layer_count(call, 2);
  const std::vector<napi_value> norms = call.elements(2, "norms", kLayerNorms * L);
  const LinearLists lists(call, 6, kLinears * L);
  Pages pages(call, 13, L);
  const std::vector<napi_value> new_ks = call.elements(18, "newKs", L), new_vs = call.elements(19, "newVs", L);
  sizes.eps = float(call.number(3, "eps"));
  const bool norm_first = call.boolean(4, "normFirst");
  sizes.activation = activation_argument(call, 5), sizes.precision = call.precision(21);
  const int64_t D = sizes.D, F = sizes.F;
  const std::vector<DecoderLayer> layers =
      read_layers(call, norms, lists, sizes, {{D, D}, {D, D}, {D, D}, {D, D}, {D, F}, {F, D}});
  const Count all{sizes.M, sizes.D};
  const float* x = call.floats(1, "x", all);
  float* y = call.floats(20, "y", all);
  a.causal = true, a.scale = float(call.number(12, "scale"));
  a.Tk = pages.check(call, a) + a.Tq;
  a.key_mask = call.optional_floats(17, "keyMask", {a.B, a.Tk});
  const std::vector<float*> ks = arrays_of(call, new_ks, "newKs", all.value), vs = arrays_of(call, new_vs, "newVs", all.value);
  PageRows rows(a);
  a.k = rows.k.data(), a.v = rows.v.data();
  const Scratch scratch(sizes, a.H, largest_rank(layers));
  const Decoder decoder{sizes, norm_first, a, scratch};
  for (size_t i = 0; i < layers.size(); i++) {
    rows.find(pages, i, a, ks[i], vs[i]);
    decoder.run(layers[i], i == 0 ? x : y, ks[i], vs[i], y);
  }
}

}  // namespace

void define_decoder(napi_env env, napi_value exports) { define<decoder_layers>(env, exports, "decoderLayers"); }

}  // namespace blip2
