// What the layers of a decoder and of an encoder have in common when one call computes many of them, without a backward pass.
#pragma once
#include <algorithm>
#include <vector>

#include "binding.h"
#include "dispatch.h"

namespace blip2 {

// y = x · weightᵀ + bias, and with a rank + scaling · (x · lora_Aᵀ) · lora_Bᵀ.
struct LayerLinear {
  int64_t in, out, rank;
  const StoredWeight* stored;
  const float *weight, *packed, *bias;   // one of stored, weight and packed is given
  const float *lora_a, *packed_a, *lora_b;
  float scaling;
};

struct LayerSizes {
  int64_t M, D, F;   // rows, their width, and that between fc1 and fc2
  float eps;
  Activation activation;
  Precision precision;
};

constexpr int64_t kLayerNorms = 4;   // weight and bias before attention, weight and bias before fc1

// x [M, in] → y [M, out], plus `residual` if that is not null. `low` has room for [M, rank]; y is neither x nor the residual.
void apply(const LayerLinear& l, const LayerSizes& sizes, const float* x, const float* residual, float* low, float* y);

// x [M, D] → y [M, F]: fc1 and its activation, which is applied after an adapter has been added.
void activated(const LayerLinear& fc1, const LayerSizes& sizes, const float* x, float* low, float* y);

// Argument i: the sizes [B, T, D, F, numHeads], of which those of attention are written to `a`.
template <class A>
LayerSizes layer_sizes(Call& call, size_t i, A& a) {
  int64_t sizes[kMaxRank];
  call.sizes(i, "sizes", sizes, 5);
  a.B = sizes[0], a.Tq = sizes[1], a.D = sizes[2], a.H = sizes[4];
  check_heads(call, a.D, a.H);
  LayerSizes l{};
  const Count rows{a.B, a.Tq}, wide{a.B, a.Tq, 3, a.D}, wider{a.B, a.Tq, sizes[3]};
  if (wide.value <= 0 || wider.value <= 0) call.fail("sizes: expected at least one position, and widths that fit in memory");
  l.M = rows.value, l.D = a.D, l.F = sizes[3];
  return l;
}

// The number of layers, by argument i, their norms.
int64_t layer_count(const Call& call, size_t i);

// Arguments i … i + 5: lists about the linears of all layers. Elements are read by the constructor, before any pointer.
class LinearLists {
 public:
  LinearLists(const Call& call, size_t i, int64_t count);
  // Entry i of the lists, a linear from `in` to `out` columns.
  LayerLinear read(Call& call, int64_t i, int64_t in, int64_t out, Precision precision) const;

 private:
  std::vector<napi_value> weights_, biases_, lora_a_, lora_b_;
  std::vector<bool> packed_;   // of weights, then of lora_a
  std::vector<float> scalings_;
};

// A layer with N linears.
template <size_t N>
struct Layer {
  const float* norms[kLayerNorms];
  LayerLinear linears[N];
};

struct Widths {
  int64_t in, out;
};

// The layers of the lists; `widths` are those of the linears of each.
template <size_t N>
std::vector<Layer<N>> read_layers(Call& call, const std::vector<napi_value>& norms, const LinearLists& lists, const LayerSizes& sizes,
                                  const Widths (&widths)[N]) {
  std::vector<Layer<N>> layers(norms.size() / kLayerNorms);
  for (size_t i = 0; i < norms.size(); i++)
    layers[i / kLayerNorms].norms[i % kLayerNorms] = call.floats_of(norms, "norms", int64_t(i), sizes.D);
  for (size_t i = 0; i < layers.size() * N; i++)
    layers[i / N].linears[i % N] = lists.read(call, int64_t(i), widths[i % N].in, widths[i % N].out, sizes.precision);
  return layers;
}

template <size_t N>
int64_t largest_rank(const std::vector<Layer<N>>& layers) {
  int64_t rank = 0;
  for (const Layer<N>& layer : layers)
    for (const LayerLinear& linear : layer.linears) rank = std::max(rank, linear.rank);
  return rank;
}

}  // namespace blip2
