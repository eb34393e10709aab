// Pre-norm layers of an encoder: the kernels of their parts in one call. Exported to JavaScript (typed in src/addon.ts). The results are
// those of the separate calls, bit for bit.
#include <algorithm>
#include <utility>
#include <vector>

#include "layers.h"

namespace blip2 {
namespace {

enum { kQkv, kProjection, kFc1, kFc2, kLinears };

using EncoderLayer = Layer<kLinears>;

// Memory for the intermediate results of a layer; the next one uses it again.
struct Room {
  float *h, *sum, *wide, *low, *statistics, *lse;

  // Argument i, with this many numbers for each of M rows: h and sum D each, `wide` 3·D or F, the largest rank, 2, and one for each head.
  Room(const Call& call, size_t i, const LayerSizes& l, int64_t heads, int64_t rank) {
    const int64_t widest = std::max(3 * l.D, l.F);
    float* at = call.floats(i, "room", {l.M, 2 * l.D + widest + rank + 2 + heads});
    const auto take = [&](int64_t columns) { return std::exchange(at, at + l.M * columns); };
    h = take(l.D), sum = take(l.D), wide = take(widest), low = take(rank), statistics = take(2), lse = take(heads);
  }
};

// x and y are [M, D], and y may be x. The attention reads queries, keys and values where their common product is.
void run(const EncoderLayer& layer, const LayerSizes& l, const Room& s, Attention& a, const float* x, float* y) {
  const auto norm = [&](const float* from, int i) {
    kernels().layer_norm(from, layer.norms[i], layer.norms[i + 1], l.eps, s.h, s.statistics, s.statistics + l.M, l.M, l.D);
    return s.h;
  };
  apply(layer.linears[kQkv], l, norm(x, 0), nullptr, s.low, s.wide);
  a.q = s.wide, a.k = s.wide + l.D, a.v = s.wide + 2 * l.D, a.stride = 3 * l.D;
  a.out = s.h, a.lse = s.lse;
  attention_kernels(l.precision).forward(a);
  apply(layer.linears[kProjection], l, s.h, x, s.low, s.sum);
  activated(layer.linears[kFc1], l, norm(s.sum, 2), s.low, s.wide);
  apply(layer.linears[kFc2], l, s.wide, s.sum, s.low, y);
}

// encoderLayers(sizes, x, norms, eps, activation, weights, biases, lora_A, lora_B, scalings, packed, scale, room, y, precision). Lists have
// layer after layer. Linears are qkv, projection, fc1 and fc2; their weights are arrays, packed arrays or handles, and what they do not have
// is null.
void encoder_layers(Call& call) {
  Attention a{};
  LayerSizes sizes = layer_sizes(call, 0, a);
  const int64_t L = layer_count(call, 2);
  const std::vector<napi_value> norms = call.elements(2, "norms", kLayerNorms * L);
  const LinearLists lists(call, 5, kLinears * L);
  sizes.eps = float(call.number(3, "eps"));
  sizes.activation = activation_argument(call, 4), sizes.precision = call.precision(14);
  const int64_t D = sizes.D, F = sizes.F;
  const std::vector<EncoderLayer> layers = read_layers(call, norms, lists, sizes, {{D, 3 * D}, {D, D}, {D, F}, {F, D}});
  const Count all{sizes.M, sizes.D};
  const float* x = call.floats(1, "x", all);
  float* y = call.floats(13, "y", all);
  a.Tk = a.Tq, a.scale = float(call.number(11, "scale"));
  const Room room(call, 12, sizes, a.H, largest_rank(layers));
  for (const EncoderLayer& layer : layers) {
    run(layer, sizes, room, a, x, y);
    x = y;
  }
}

}  // namespace

void define_encoder(napi_env env, napi_value exports) { define<encoder_layers>(env, exports, "encoderLayers"); }

}  // namespace blip2
