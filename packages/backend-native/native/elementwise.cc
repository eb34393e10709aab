// GELU, ReLU and dropout.
#include "random.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kChunk = 8192;

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

struct Normal {
  vf cumulative, bell;   // Φ(x) and e^(-x²/2)
};

// Φ(-a) = e^(-a²/2) · h(a) for a ≥ 0. h is a polynomial in t = 1 / (1 + 0.3 a) - 0.6, fitted for a in 0 … 14 with a
// relative error of 3.4e-8, so that the left tail is accurate too; in float32 the whole is good to about 3e-7.
inline Normal normal(vf x) {
  const vf a = vmin(vabs(x), splat(14.f));
  const vf t = 1.f / (1.f + 0.3f * a) - 0.6f;
  vf h = splat(-0.004509254824370146f);
  h = h * t + 0.03746496140956879f;
  h = h * t + 0.01660049520432949f;
  h = h * t - 0.09469983726739883f;
  h = h * t - 0.06817649304866791f;
  h = h * t + 0.21702507138252258f;
  h = h * t + 0.5489470958709717f;
  h = h * t + 0.6533841490745544f;
  h = h * t + 0.501654863357544f;
  h = h * t + 0.1551436185836792f;
  const vf bell = vexp(-0.5f * a * a);
  const vf tail = h * bell;
  return {x < 0.f ? tail : 1.f - tail, bell};
}

}  // namespace

void gelu(const float* x, float* y, int64_t n) {
  map1(x, y, n, [](vf v) {
    const vf r = v * normal(v).cumulative;
    return v < -14.f ? vf{} : r;   // also keeps -∞ · 0 from being NaN
  });
}

// d/dx x·Φ(x) = Φ(x) + x·φ(x).
void gelu_grad(const float* dy, const float* x, float* dx, int64_t n) {
  map2(dy, x, dx, n, [](vf d, vf v) {
    const Normal p = normal(v);
    const vf limited = vmax(vmin(v, splat(14.f)), splat(-14.f));
    const vf slope = p.cumulative + limited * p.bell * 0.3989422804f;
    return d * (v == v ? slope : v);
  });
}

void relu(const float* x, float* y, int64_t n) {
  map1(x, y, n, [](vf v) { return v < 0.f ? vf{} : v; });   // NaN stays NaN
}

void relu_grad(const float* dy, const float* y, float* dx, int64_t n) {
  map2(dy, y, dx, n, [](vf d, vf v) { return v > 0.f ? d : vf{}; });
}

void dropout(const float* x, float* y, int64_t n, float rate, uint32_t key0, uint32_t key1, bool add) {
  const float kept = 1.f / (1.f - rate);
  parallel_chunks(n, kChunk, [=](int64_t begin, int64_t end) {
    float uniform[256];
    for (int64_t from = begin; from < end; from += 256) {
      const int64_t count = smaller(256, end - from);
      philox_uniform(key0, key1, uint64_t(from), count, uniform);
      float* to = y + from;
      for (int64_t i = 0; i < count; i++) {
        const float value = uniform[i] >= rate ? x[from + i] * kept : 0.f;
        to[i] = add ? to[i] + value : value;
      }
    }
  });
}

// One raw block of the generator, for its published test vectors.
void philox_block(uint32_t* counter, uint32_t key0, uint32_t key1) {
  vw words[4];
  for (int w = 0; w < 4; w++) words[w] = vw{} + uint64_t(counter[w]);
  philox(words, key0, key1);
  for (int w = 0; w < 4; w++) counter[w] = uint32_t(words[w][0]);
}

}  // namespace ISA
}  // namespace blip2
