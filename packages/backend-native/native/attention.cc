// Multi-head attention, forward and backward, one block of queries of one head at a time. Only that block's scores are
// held; the backward pass recomputes the probabilities from the saved log-sum-exp (Dao et al. 2022).
#include "attention_rows.h"
#include "gemm.h"
#include "random.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr float kNothingVisible = -1e30f;   // the lse of a query that sees no key

// Queries per block: at most 256, and the scores of a block stay in the second-level cache. Blocks are of equal size.
int64_t queries_per_block(int64_t Tq, int64_t Tk) {
  const int64_t most = smaller(256, larger(16, 65536 / larger(1, Tk)));
  return larger(1, ceil_div(Tq, ceil_div(larger(1, Tq), most)));
}

struct Head {
  const Attention& a;
  int64_t b, h, d;

  Head(const Attention& call, int64_t index) : a(call), b(index / a.H), h(index % a.H), d(a.D / a.H) {}
  int64_t q_at(int64_t i) const { return (b * a.Tq + i) * a.D + h * d; }
  int64_t k_at() const { return b * a.Tk * a.D + h * d; }
  int64_t row(int64_t i) const { return (b * a.H + h) * a.Tq + i; }
  // Keys that query i may see by position.
  int64_t visible(int64_t i) const {
    return a.causal ? larger(0, smaller(a.Tk, i + a.Tk - a.Tq + 1)) : a.Tk;
  }
};

// products [n, keys] = x · yᵀ, where x starts at query row i of q or dout and y at the head's keys of k or v. Rows are
// `keys` padded to whole vectors apart.
void multiply_by_keys(const Head& head, const float* x, int64_t i, int64_t n, const float* y, int64_t keys,
                      float* products) {
  const int64_t D = head.a.D;
  gemm_local({n, keys, head.d, {x + head.q_at(i), D, 1}, {y + head.k_at(), 1, D}, nullptr, products, padded(keys),
              false},
             true);
}

// factors[j] = 1 / (1 - rate) where the probability (query i, key j) is kept, else 0.
const float* dropout_row(const Head& head, int64_t i, int64_t keys) {
  const Attention& a = head.a;
  float* factors = scratch(kRow, padded(keys));
  philox_uniform(a.key0, a.key1, uint64_t(head.row(i)) * uint64_t(a.Tk), keys, factors);
  const float kept = 1.f / (1.f - a.dropout);
  for (int64_t j = 0; j < keys; j++) factors[j] = factors[j] >= a.dropout ? kept : 0.f;
  clear(factors + keys, padded(keys) - keys);
  return factors;
}

void forward_block(const Head& head, int64_t begin, int64_t end) {
  const Attention& a = head.a;
  const int64_t keys = head.visible(end - 1), ld = padded(keys);
  float* p = scratch(kScores, (end - begin) * ld);
  const float* mask = padded_mask(a.key_mask, head.b, a.Tk);
  multiply_by_keys(head, a.q, begin, end - begin, a.k, keys, p);
  for (int64_t i = begin; i < end; i++) {
    float* row = p + (i - begin) * ld;
    const float largest = mask_row(row, keys, head.visible(i), a.scale, mask);
    if (largest == -__builtin_inff()) {
      clear(row, ld);
      a.lse[head.row(i)] = kNothingVisible;
      continue;
    }
    const float sum = exp_row(row, keys, largest), scale = 1.f / sum;
    a.lse[head.row(i)] = largest + __builtin_logf(sum);
    if (a.dropout > 0) {
      const float* factors = dropout_row(head, i, keys);
      for (int64_t j = 0; j < ld; j++) row[j] *= scale * factors[j];
    } else {
      for (int64_t j = 0; j < ld; j++) row[j] *= scale;
    }
  }
  gemm_local({end - begin, head.d, keys, {p, ld, 1}, {a.v + head.k_at(), a.D, 1}, nullptr, a.out + head.q_at(begin),
              a.D, false});
}

// dP = dout · vᵀ; dS = P ∘ (dP - (dout · out)) · scale; dq = dS · k; dk += dSᵀ · q; dv += Pᵀ · dout.
void backward_block(const Head& head, int64_t begin, int64_t end) {
  const Attention& a = head.a;
  const int64_t d = head.d, n = end - begin, keys = head.visible(end - 1), ld = padded(keys);
  float* p = scratch(kScores, 2 * n * ld);
  float* ds = p + n * ld;
  const float* mask = padded_mask(a.key_mask, head.b, a.Tk);
  multiply_by_keys(head, a.q, begin, n, a.k, keys, p);
  multiply_by_keys(head, a.dout, begin, n, a.v, keys, ds);
  for (int64_t i = begin; i < end; i++) {
    float *row = p + (i - begin) * ld, *drow = ds + (i - begin) * ld;
    const float lse = a.lse[head.row(i)];
    if (lse == kNothingVisible) {
      clear(row, ld);
      clear(drow, ld);
      continue;
    }
    mask_row(row, keys, head.visible(i), a.scale, mask);
    exp_row(row, keys, lse);
    const float delta = dot(a.dout + head.q_at(i), a.out + head.q_at(i), d);
    if (a.dropout > 0) {
      const float* factors = dropout_row(head, i, keys);
      for (int64_t j = 0; j < ld; j++) {
        drow[j] = row[j] * (drow[j] * factors[j] - delta) * a.scale;
        row[j] *= factors[j];
      }
    } else {
      for (int64_t j = 0; j < ld; j++) drow[j] = row[j] * (drow[j] - delta) * a.scale;
    }
  }
  const Strided k{a.k + head.k_at(), a.D, 1}, q{a.q + head.q_at(begin), a.D, 1}, dout{a.dout + head.q_at(begin), a.D, 1};
  gemm_local({n, d, keys, {ds, ld, 1}, k, nullptr, a.dq + head.q_at(begin), a.D, false});
  gemm_local({keys, d, n, {ds, 1, ld}, q, nullptr, a.dk + head.k_at(), a.D, true});
  gemm_local({keys, d, n, {p, 1, ld}, dout, nullptr, a.dv + head.k_at(), a.D, true});
}

}  // namespace

void attention(const Attention& a) {
  const int64_t step = queries_per_block(a.Tq, a.Tk), blocks = ceil_div(a.Tq, step);
  parallel_tasks(a.B * a.H * blocks, [&](int64_t task) {
    const int64_t begin = task % blocks * step;
    forward_block(Head(a, task / blocks), begin, smaller(a.Tq, begin + step));
  });
}

void attention_grad(const Attention& a) {
  const int64_t step = queries_per_block(a.Tq, a.Tk);
  parallel_tasks(a.B * a.H, [&](int64_t task) {
    const Head head(a, task);
    // A causal block may not reach the last keys, so the sums start from zero.
    for (int64_t j = 0; j < a.Tk; j++) {
      clear(a.dk + head.k_at() + j * a.D, head.d);
      clear(a.dv + head.k_at() + j * a.D, head.d);
    }
    for (int64_t begin = 0; begin < a.Tq; begin += step) backward_block(head, begin, smaller(a.Tq, begin + step));
  });
}

}  // namespace ISA
}  // namespace blip2
