// Multi-head attention, forward and backward, MR queries of one head at a time against keys and values that are packed once
// (gemm_panels.h). The backward pass recomputes the probabilities from the saved log-sum-exp (Dao et al. 2022). The format F rounds
// the operands of the matmuls; everything else is float32 in every format.
#pragma once
#include "attention_rows.h"
#include "gemm_registers.h"
#include "random.h"

namespace blip2 {
namespace ISA {
namespace {

constexpr float kNothingVisible = -1e30f;   // the lse of a query without visible keys

// Blocks of equal size, of at most `most` queries.
int64_t queries_per_block(int64_t Tq, int64_t most) {
  return larger(1, ceil_div(Tq, ceil_div(larger(1, Tq), most)));
}

// Queries, keys and values of one head of one item. Rows are `stride` numbers apart, those of `out` out_stride, which is the same in the
// backward pass. All but q, k, v and out only in the backward pass.
struct HeadRows {
  const float *q, *k, *v;
  float* out;
  const float* dout;
  float *dq, *dk, *dv;
  int64_t stride, out_stride;
};

// One head of item b, its rows in the arrays of the call or elsewhere.
struct Head {
  const Attention& a;
  int64_t b, h, d;
  HeadRows rows;

  Head(const Attention& call, int64_t index) : Head(call, index, {}) {
    const int64_t q = b * a.Tq * a.stride + h * d, k = b * a.Tk * a.stride + h * d, out = b * a.Tq * a.D + h * d;
    rows = {a.q + q, a.k + k, a.v + k, a.out + out, a.dout + out, a.dq + q, a.dk + k, a.dv + k, a.stride, a.D};
  }
  Head(const Attention& call, int64_t index, const HeadRows& rows)
      : a(call), b(index / a.H), h(index % a.H), d(a.D / a.H), rows(rows) {}
  int64_t row(int64_t i) const { return (b * a.H + h) * a.Tq + i; }
  // Number of keys that query i may attend to, by position.
  int64_t visible(int64_t i) const {
    return a.causal ? larger(0, smaller(a.Tk, i + a.Tk - a.Tq + 1)) : a.Tk;
  }
};

// A matrix [depth, columns] of a head, packed for matmul: panels of `words` words.
struct Packed {
  const float* panels;
  int64_t columns, words;
};

// Floats from one row of scores to the next, so that whole panels fit.
int64_t row_length(int64_t keys) { return ceil_div(keys, NR) * NR; }

template <class F>
int64_t packed_size(int64_t depth, int64_t columns) {
  return ceil_div(columns, NR) * NR * panel_words<F>(depth);
}

// Packs b at `room` and advances `room` past it.
template <class F>
Packed packed(const Strided& b, int64_t depth, int64_t columns, float*& room) {
  const Packed result{room, columns, panel_words<F>(depth)};
  pack_b<F>(right_operand(b), 0, columns, 0, depth, room);
  room += packed_size<F>(depth, columns);
  return result;
}

// c [rows, columns of b] = a [rows, depth] · the first `depth` rows of b, for at most MR rows. With `needed`, at least that many
// columns are computed, and rows of c must have room for whole panels.
template <class F>
void multiply_rows(const float* a, int64_t a_stride, int64_t rows, int64_t depth, const Packed& b, float* c, int64_t ldc,
                   int64_t needed = -1) {
  const int64_t words = panel_words<F>(depth);
  const bool in_rows = words <= kDepth, roomy = needed >= 0;
  float* panel = scratch(kPackedPanels, MR * larger(kRowStride, words) + W);
  if (in_rows) copy_a<F>({a, a_stride, 1}, 0, rows, 0, depth, panel, kRowStride);
  else pack_a<F>({a, a_stride, 1}, 0, rows, 0, depth, panel);
  // In whole panels: their width was chosen when b was packed.
  const int64_t columns = roomy ? smaller(b.columns, ceil_div(needed, NR) * NR) : b.columns;
  const auto multiply = in_rows ? multiply_tile<F, kRowStride> : multiply_tile<F>;
  multiply(words, panel, b.panels, b.words, 0, rows, columns, c, ldc, nullptr, false, roomy);
}

// c [columns of a, columns of b] = or += aᵀ · b
template <class F>
void multiply_transposed(const float* a, int64_t a_stride, int64_t a_columns, const Strided& b, int64_t depth,
                     int64_t b_columns, float* c, int64_t ldc, bool accumulate) {
  const int64_t words = panel_words<F>(depth), size = packed_size<F>(depth, b_columns);
  float* room = scratch(kPackedPanels, size + MR * words + W);
  float* panel = room + size;
  const Packed right = packed<F>(b, depth, b_columns, room);
  for (int64_t i = 0; i < a_columns; i += MR) {
    const int64_t rows = smaller(MR, a_columns - i);
    pack_a<F>({a, 1, a_stride}, i, rows, 0, depth, panel);
    multiply_tile<F>(words, panel, right.panels, words, 0, rows, b_columns, c + i * ldc, ldc, nullptr, accumulate);
  }
}

// factors[j] = 1 / (1 - rate) where the probability (query i, key j) is kept, else 0.
const float* dropout_row(const Head& head, int64_t i, int64_t keys) {
  const Attention& a = head.a;
  float* factors = scratch(kRow, padded(keys));
  philox_uniform(a.key0, a.key1, uint64_t(head.row(i)) * uint64_t(a.Tk), keys, factors);
  const float kept = float(1 / (1 - a.dropout)), least = float(a.dropout);
  for (int64_t j = 0; j < keys; j++) factors[j] = factors[j] >= least ? kept : 0.f;
  clear(factors + keys, padded(keys) - keys);
  return factors;
}

// Replaces the raw scores of query i by its probabilities, after dropout.
void softmax_row(const Head& head, int64_t i, int64_t keys, const float* mask, float* row) {
  const Attention& a = head.a;
  float& lse = a.lse[head.row(i)];
  const float largest = mask_row(row, keys, head.visible(i), a.scale, bias_row(a, head.b, head.h, i), mask);
  if (largest == -__builtin_inff()) {
    clear(row, padded(keys));
    lse = kNothingVisible;
    return;
  }
  const float sum = exp_row(row, keys, largest), scale = 1.f / sum;
  lse = largest + __builtin_logf(sum);
  if (a.dropout > 0) {
    const float* factors = dropout_row(head, i, keys);
    for (int64_t j = 0; j < padded(keys); j++) row[j] *= scale * factors[j];
  } else {
    for (int64_t j = 0; j < padded(keys); j++) row[j] *= scale;
  }
}

template <class F>
void forward_block(const Head& head, int64_t begin, int64_t end) {
  const Attention& a = head.a;
  const int64_t d = head.d, keys = head.visible(end - 1), ld = row_length(keys);
  float* room = scratch(kLocalPanels, packed_size<F>(d, keys) + packed_size<F>(keys, d) + W);
  const HeadRows& r = head.rows;
  const Packed k = packed<F>({r.k, 1, r.stride}, d, keys, room);
  const Packed v = packed<F>({r.v, r.stride, 1}, keys, d, room);
  float* p = scratch(kScores, MR * ld);
  const float* mask = padded_mask(a.key_mask, head.b, a.Tk);
  for (int64_t i = begin; i < end; i += MR) {
    const int64_t count = smaller(MR, end - i), seen = head.visible(i + count - 1);
    multiply_rows<F>(r.q + i * r.stride, r.stride, count, d, k, p, ld, seen);
    for (int64_t j = 0; j < count; j++) softmax_row(head, i + j, seen, mask, p + j * ld);
    multiply_rows<F>(p, ld, count, seen, v, r.out + i * r.out_stride, r.out_stride);
  }
}

// Replaces the raw scores of query i by its probabilities P, after dropout, and its dP by dS = P ∘ (dP - (dout · out)) · scale.
void softmax_grad_row(const Head& head, int64_t i, int64_t keys, const float* mask, float scale, float* row, float* drow) {
  const Attention& a = head.a;
  const float lse = a.lse[head.row(i)];
  if (lse == kNothingVisible) {
    clear(row, padded(keys));
    clear(drow, padded(keys));
    return;
  }
  mask_row(row, keys, head.visible(i), a.scale, bias_row(a, head.b, head.h, i), mask);
  exp_row(row, keys, lse);
  const int64_t at = i * head.rows.stride;
  const float delta = dot(head.rows.dout + at, head.rows.out + at, head.d);
  if (a.dropout > 0) {
    const float* factors = dropout_row(head, i, keys);
    for (int64_t j = 0; j < padded(keys); j++) {
      drow[j] = row[j] * (drow[j] * factors[j] - delta) * scale;
      row[j] *= factors[j];
    }
  } else {
    for (int64_t j = 0; j < padded(keys); j++) drow[j] = row[j] * (drow[j] - delta) * scale;
  }
}

// The keys and values of a head, packed for the backward pass.
struct PackedHead {
  Packed scores_k, scores_v, k;   // kᵀ, vᵀ and k
};

// dP = dout · vᵀ; dq = dS · k; dk = or += dSᵀ · q; dv = or += Pᵀ · dout.
template <class F>
void backward_block(const Head& head, const PackedHead& packed, int64_t begin, int64_t end, bool accumulate) {
  const Attention& a = head.a;
  const HeadRows& r = head.rows;
  const int64_t d = head.d, n = end - begin, keys = head.visible(end - 1), ld = row_length(keys);
  float* p = scratch(kScores, 2 * n * ld);
  float* ds = p + n * ld;
  const float* mask = padded_mask(a.key_mask, head.b, a.Tk);
  for (int64_t i = begin; i < end; i += MR) {
    const int64_t count = smaller(MR, end - i), seen = head.visible(i + count - 1);
    float *row = p + (i - begin) * ld, *drow = ds + (i - begin) * ld;
    multiply_rows<F>(r.q + i * r.stride, r.stride, count, d, packed.scores_k, row, ld, seen);
    multiply_rows<F>(r.dout + i * r.stride, r.stride, count, d, packed.scores_v, drow, ld, seen);
    for (int64_t j = 0; j < count; j++) {
      softmax_grad_row(head, i + j, seen, mask, a.scale, row + j * ld, drow + j * ld);
      clear(row + j * ld + padded(seen), padded(keys) - padded(seen));
      clear(drow + j * ld + padded(seen), padded(keys) - padded(seen));
    }
    multiply_rows<F>(drow, ld, count, seen, packed.k, r.dq + i * r.stride, r.stride);
  }
  multiply_transposed<F>(ds, ld, keys, {r.q + begin * r.stride, r.stride, 1}, n, d, r.dk, r.stride, accumulate);
  multiply_transposed<F>(p, ld, keys, {r.dout + begin * r.stride, r.stride, 1}, n, d, r.dv, r.stride, accumulate);
}

// dbias [Tq, Tk] += dS before its scaling: the bias is added to scaled scores.
template <class F>
void add_bias_grad(const Head& head, float* dbias) {
  const Attention& a = head.a;
  const int64_t d = head.d, ld = row_length(a.Tk);
  float* room = scratch(kLocalPanels, 2 * packed_size<F>(d, a.Tk) + W);
  const HeadRows& of = head.rows;
  const Packed k = packed<F>({of.k, 1, of.stride}, d, a.Tk, room);
  const Packed v = packed<F>({of.v, 1, of.stride}, d, a.Tk, room);
  float *p = scratch(kScores, 2 * MR * ld), *ds = p + MR * ld;
  const float* mask = padded_mask(a.key_mask, head.b, a.Tk);
  for (int64_t i = 0; i < a.Tq; i += MR) {
    const int64_t rows = smaller(MR, a.Tq - i), seen = head.visible(i + rows - 1);
    multiply_rows<F>(of.q + i * of.stride, of.stride, rows, d, k, p, ld, seen);
    multiply_rows<F>(of.dout + i * of.stride, of.stride, rows, d, v, ds, ld, seen);
    for (int64_t r = 0; r < rows; r++) {
      softmax_grad_row(head, i + r, seen, mask, 1.f, p + r * ld, ds + r * ld);
      for (int64_t j = 0; j < seen; j++) dbias[(i + r) * a.Tk + j] += ds[r * ld + j];
    }
  }
}

template <class F>
void attention(const Attention& a) {
  const int64_t step = queries_per_block(a.Tq, 512), blocks = ceil_div(a.Tq, step);
  parallel_tasks(a.B * a.H * blocks, [&](int64_t task) {
    const int64_t begin = task % blocks * step;
    forward_block<F>(Head(a, task / blocks), begin, smaller(a.Tq, begin + step));
  });
}

// The gradients of queries first … queries - 1, and of all keys.
template <class F>
void backward_head(const Head& head, int64_t first, int64_t queries, int64_t keys) {
  const HeadRows& r = head.rows;
  const int64_t d = head.d;
  // As many queries as keep their probabilities and gradients in the second-level cache.
  const int64_t step = queries_per_block(queries - first, smaller(256, larger(16, 65536 / larger(1, keys))));
  // Several blocks add to dk and dv from zero, because the first may not reach the last keys. A single block covers every key.
  const bool summed = step != queries - first;
  for (int64_t j = 0; j < (summed ? keys : 0); j++) {
    clear(r.dk + j * r.stride, d);
    clear(r.dv + j * r.stride, d);
  }
  float* room = scratch(kLocalPanels, 2 * packed_size<F>(d, keys) + packed_size<F>(keys, d) + W);
  const Packed scores_k = packed<F>({r.k, 1, r.stride}, d, keys, room);
  const Packed scores_v = packed<F>({r.v, 1, r.stride}, d, keys, room);
  const Packed k = packed<F>({r.k, r.stride, 1}, keys, d, room);
  for (int64_t begin = first; begin < queries; begin += step)
    backward_block<F>(head, {scores_k, scores_v, k}, begin, smaller(queries, begin + step), summed);
}

template <class F>
void attention_grad(const Attention& a) {
  parallel_tasks(a.B * a.H, [&](int64_t task) { backward_head<F>(Head(a, task), 0, a.Tq, a.Tk); });
}

// One task sums the items that share a bias, in their order, so that the sum does not depend on the number of threads.
template <class F>
void attention_grad_bias(const Attention& a) {
  const int64_t items = a.shared_bias ? a.B : 1, size = a.Tq * a.Tk;
  parallel_tasks((a.shared_bias ? 1 : a.B) * a.H, [&](int64_t task) {
    float* dbias = a.dbias + task * size;
    clear(dbias, size);
    for (int64_t b = 0; b < items; b++) add_bias_grad<F>(Head(a, b * a.H + task), dbias);
  });
}

// Rows of a head of item b, one after the other in memory of the calling thread, `arrays` of them.
struct LocalRows {
  const PackedAttention& p;
  int64_t b, h, d, n;
  float* room;

  LocalRows(const PackedAttention& call, int64_t b, int64_t h, int arrays)
      : p(call), b(b), h(h), d(p.rows.D / p.rows.H), n(p.Q + p.starts[b + 1] - p.starts[b]), room(scratch(kPartials, arrays * n * d)) {}
  // The first query that this item computes: the prefix belongs to the first item of its picture.
  int64_t first() const { return p.first[b] ? 0 : p.Q; }
  int64_t at(int64_t i) const {
    return (i < p.Q ? p.pictures[b] * p.Q + i : p.starts[b] + i - p.Q) * p.rows.D + h * d;
  }
  float* array(int i) const { return room + i * n * d; }
  float* gathered(int i, const float* x) const {
    for (int64_t r = 0; r < n; r++) __builtin_memcpy(array(i) + r * d, x + at(r), size_t(d) * 4);
    return array(i);
  }
  void scatter(int i, int64_t from, float* to) const {
    for (int64_t r = from; r < n; r++) __builtin_memcpy(to + at(r), array(i) + r * d, size_t(d) * 4);
  }
  // Adds the rows of the prefix to what other items of its picture gave them.
  void scatter_sums(int i, float* to) const {
    if (first() == 0) return scatter(i, 0, to);
    for (int64_t r = 0; r < p.Q; r++)
      for (int64_t j = 0; j < d; j++) to[at(r) + j] += array(i)[r * d + j];
    scatter(i, p.Q, to);
  }
};

template <class F>
void packed_attention(const PackedAttention& p) {
  const Attention& a = p.rows;
  parallel_tasks(a.B * a.H, [&](int64_t task) {
    const LocalRows x(p, task / a.H, task % a.H, 4);
    const HeadRows rows{x.gathered(0, a.q), x.gathered(1, a.k), x.gathered(2, a.v), x.array(3), nullptr, nullptr, nullptr, nullptr, x.d, x.d};
    const Head head(a, task, rows);
    const int64_t step = queries_per_block(x.n - x.first(), 512);
    for (int64_t begin = x.first(); begin < x.n; begin += step) forward_block<F>(head, begin, smaller(x.n, begin + step));
    x.scatter(3, x.first(), a.out);
  });
}

// A task has all items of a picture, in their order, since they add to the gradients of the same prefix.
template <class F>
void packed_attention_grad(const PackedAttention& p) {
  const Attention& a = p.rows;
  parallel_tasks(p.groups * a.H, [&](int64_t task) {
    const int64_t group = task / a.H, h = task % a.H;
    for (int64_t i = p.group_starts[group]; i < p.group_starts[group + 1]; i++) {
      const int64_t b = p.items[i];
      const LocalRows x(p, b, h, 8);
      if (x.n == x.first()) continue;
      const HeadRows rows{x.gathered(0, a.q), x.gathered(1, a.k), x.gathered(2, a.v), x.gathered(3, a.out),
                          x.gathered(4, a.dout), x.array(5), x.array(6), x.array(7), x.d, x.d};
      backward_head<F>(Head(a, b * a.H + h, rows), x.first(), x.n, x.n);
      x.scatter(5, x.first(), a.dq);
      x.scatter_sums(6, a.dk);
      x.scatter_sums(7, a.dv);
    }
  });
}

template <class F>
constexpr AttentionKernels attention_kernels_of() {
  AttentionKernels kernels{};
  kernels.forward = attention<F>;
  kernels.backward = attention_grad<F>;
  kernels.grad_bias = attention_grad_bias<F>;
  kernels.packed = packed_attention<F>;
  kernels.packed_backward = packed_attention_grad<F>;
  return kernels;
}

}  // namespace
}  // namespace ISA
}  // namespace blip2
