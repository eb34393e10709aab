// Attention of a few queries to keys and values in pages, for generation with a KV cache (Kwon et al. 2023). Keys and values are
// read in place, so nothing is packed or copied; one query at a time.
#include "attention_rows.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr int64_t kHeads = 8;   // processed together, so that memory is read in runs of some kilobytes
constexpr int64_t kAhead = 2;   // keys

// y += factor · x
void add_scaled(const float* x, float factor, int64_t n, float* y) {
  int64_t j = 0;
  for (; j + W <= n; j += W) store(y + j, load(y + j) + load(x + j) * factor);
  for (; j < n; j++) y[j] += x[j] * factor;
}

// Asks for n numbers that are read soon: rows of keys and values lie in pages of their own, which the processor does not prefetch.
void prefetch(const float* x, int64_t n) {
  for (int64_t j = 0; j < n; j += 16) __builtin_prefetch(x + j);
}

// Replaces a query's scores by its probabilities over the first `keys` keys; all 0 if there are none.
void softmax_row(float* p, int64_t keys, float scale, const float* bias) {
  clear(p + keys, padded(keys) - keys);
  const float largest = mask_row(p, keys, keys, scale, bias, nullptr);
  if (largest == -__builtin_inff()) return clear(p, keys);
  const float factor = 1.f / exp_row(p, keys, largest);
  for (int64_t j = 0; j < keys; j++) p[j] *= factor;
}

// The keys that an item sees, in order: all before `end`, or those that its mask keeps. Hidden ones are never read, so that the result is
// the one without them, bit for bit.
struct Visible {
  const int32_t* at = nullptr;
  int64_t count;

  Visible(const float* mask, int64_t end) : count(end) {
    if (!mask) return;
    int32_t* found = reinterpret_cast<int32_t*>(scratch(kMask, end));
    count = 0;
    for (int64_t j = 0; j < end; j++)
      if (mask[j] != 0.f) found[count++] = int32_t(j);
    at = found;
  }
  int64_t operator[](int64_t s) const { return at ? at[s] : s; }

  // The biases of these keys, of a row with one for every key.
  const float* bias(const float* row) const {
    if (!row || !at) return row;
    float* picked = scratch(kRow, count);
    for (int64_t s = 0; s < count; s++) picked[s] = row[at[s]];
    return picked;
  }
};

// Query i of item b, heads h … h + heads - 1.
void attend(const PagedAttention& a, int64_t b, int64_t i, int64_t h, int64_t heads) {
  const int64_t d = a.D / a.H, at = (b * a.Tq + i) * a.D + h * d, stride = padded(a.Tk);
  const int64_t end = a.causal ? larger(0, smaller(a.Tk, i + a.Tk - a.Tq + 1)) : a.Tk;
  const float *const *k = a.k + b * a.Tk, *const *v = a.v + b * a.Tk;
  const Visible keys(a.key_mask ? a.key_mask + b * a.Tk : nullptr, end);
  float* p = scratch(kScores, heads * stride);
  const auto row = [&](const float* const* rows, int64_t s) { return rows[keys[s]] + h * d; };
  for (int64_t s = 0; s < keys.count; s++) {
    if (s + kAhead < keys.count) prefetch(row(k, s + kAhead), heads * d);
    for (int64_t n = 0; n < heads; n++) p[n * stride + s] = dot(a.q + at + n * d, row(k, s) + n * d, d);
  }
  for (int64_t n = 0; n < heads; n++) softmax_row(p + n * stride, keys.count, a.scale, keys.bias(bias_row(a, b, h + n, i)));
  clear(a.out + at, heads * d);
  for (int64_t s = 0; s < keys.count; s++) {
    if (s + kAhead < keys.count) prefetch(row(v, s + kAhead), heads * d);
    for (int64_t n = 0; n < heads; n++) add_scaled(row(v, s) + n * d, p[n * stride + s], d, a.out + at + n * d);
  }
}

}  // namespace

// Items vary fastest: beams of one image read the same pages.
void paged_attention(const PagedAttention& a) {
  parallel_tasks(ceil_div(a.H, kHeads) * a.B, [&](int64_t task) {
    const int64_t b = task % a.B, h = task / a.B * kHeads;
    for (int64_t i = 0; i < a.Tq; i++) attend(a, b, i, h, smaller(kHeads, a.H - h));
  });
}

}  // namespace ISA
}  // namespace blip2
