// GELU, gated GELU, ReLU and dropout.
#include "activations.h"
#include "random.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kChunk = 8192;

typedef uint8_t vb __attribute__((vector_size(W)));   // one flag per lane of a vector

template <class F>
void map1(const float* x, float* y, int64_t n, const F& f) {
  parallel_chunks(n, kChunk, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + W <= end; i += W) store(y + i, f(load(x + i)));
    if (i < end) store_part(y + i, f(load_part(x + i, end - i)), end - i);
  });
}

template <class F>
void map2(const float* x, const float* y, float* z, int64_t n, const F& f) {
  parallel_chunks(n, kChunk, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + W <= end; i += W) store(z + i, f(load(x + i), load(y + i)));
    if (i < end) store_part(z + i, f(load_part(x + i, end - i), load_part(y + i, end - i)), end - i);
  });
}

}  // namespace

void gelu(const float* x, float* y, int64_t n) { map1(x, y, n, gelu_of); }

// d/dx x·Φ(x) = Φ(x) + x·φ(x).
void gelu_grad(const float* dy, const float* x, float* dx, int64_t n) {
  map2(dy, x, dx, n, [](vf d, vf v) {
    const Normal p = normal(v);
    const vf limited = vmax(vmin(v, splat(14.f)), splat(-14.f));
    const vf slope = p.cumulative + limited * p.bell * 0.3989422804f;
    return d * (v == v ? slope : v);
  });
}

// y = gelu_new(gate) · x
void gated_gelu(const float* gate, const float* x, float* y, int64_t n) {
  map2(gate, x, y, n, [](vf g, vf v) { return tanh_gelu(g).value * v; });
}

void gated_gelu_grad(const float* dy, const float* gate, const float* x, float* dgate, float* dx, int64_t n) {
  parallel_chunks(n, kChunk, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int64_t count = smaller(W, end - i);
      const auto read = [=](const float* p) { return count == W ? load(p + i) : load_part(p + i, count); };
      const auto write = [=](float* p, vf v) { count == W ? store(p + i, v) : store_part(p + i, v, count); };
      const TanhGelu gelu = tanh_gelu(read(gate));
      const vf d = read(dy);
      write(dgate, d * read(x) * gelu.slope);
      write(dx, d * gelu.value);
    }
  });
}

void relu(const float* x, float* y, uint8_t* positive, int64_t n) {
  parallel_chunks(n, kChunk, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int64_t count = smaller(W, end - i);
      const vf v = count == W ? load(x + i) : load_part(x + i, count);
      const vb flags = __builtin_convertvector((v > 0.f) & 1, vb);
      if (count == W) store(y + i, relu_of(v));
      else store_part(y + i, relu_of(v), count);
      __builtin_memcpy(positive + i, &flags, size_t(count));
    }
  });
}

void relu_grad(const float* dy, const uint8_t* positive, float* dx, int64_t n) {
  parallel_chunks(n, kChunk, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int64_t count = smaller(W, end - i);
      vb flags{};
      __builtin_memcpy(&flags, positive + i, size_t(count));
      const vi kept = __builtin_convertvector(flags, vi) != 0;
      if (count == W) store(dx + i, kept ? load(dy + i) : vf{});
      else store_part(dx + i, kept ? load_part(dy + i, count) : vf{}, count);
    }
  });
}

void dropout(const float* x, float* y, int64_t n, double rate, uint32_t key0, uint32_t key1, bool add) {
  const float kept = float(1 / (1 - rate)), least = float(rate);
  parallel_chunks(n, kChunk, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += 2 * W) {
      vf uniform[2];
      philox_numbers(key0, key1, uint64_t(i) / 4, uniform);
#pragma GCC unroll 2
      for (int h = 0; h < 2; h++) {
        const int64_t at = i + h * W, count = smaller(W, end - at);
        if (count <= 0) break;
        const bool whole = count == W;
        const vf value = whole ? load(x + at) : load_part(x + at, count);
        const vf sofar = !add ? vf{} : whole ? load(y + at) : load_part(y + at, count);
        // Applies the mask to the bits; with a conditional expression, the compiler would fuse multiply and add at some levels.
        const vf result = sofar + (vf)((vi)(value * kept) & (uniform[h] >= least));
        if (whole) store(y + at, result);
        else store_part(y + at, result, count);
      }
    }
  });
}

// One raw block of the generator, to check its published test vectors.
void philox_block(uint32_t* counter, uint32_t key0, uint32_t key1) {
  vw words[4];
  for (int w = 0; w < 4; w++) words[w] = vw{} + uint64_t(counter[w]);
  philox(words, key0, key1);
  for (int w = 0; w < 4; w++) counter[w] = uint32_t(words[w][0]);
}

}  // namespace ISA
}  // namespace blip2
