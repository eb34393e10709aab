// Attention, exported to JavaScript (typed in src/addon.ts).
#include <algorithm>
#include <vector>

#include "binding.h"
#include "dispatch.h"
#include "pages.h"

namespace blip2 {

void check_heads(const Call& call, int64_t D, int64_t H) {
  if (H < 1 || H > std::max<int64_t>(1, D) || D % H != 0)
    call.fail("numHeads: expected a divisor of the width " + std::to_string(D) + ", found " + std::to_string(H));
}

namespace {

// Argument i: bias [B, H, Tq, Tk] or, shared by all items, [1, H, Tq, Tk] | null.
template <class A>
void read_bias(const Call& call, size_t i, A& a) {
  const Count size{a.H, a.Tq, a.Tk}, all{a.B, a.H, a.Tq, a.Tk};
  a.shared_bias = call.given(i, "bias") && call.length(i, "bias") == size.value;
  a.bias = call.optional_floats(i, "bias", a.shared_bias ? size : all);
}

// Arguments 0 … 12: B, Tq, Tk, D, H, scale, causal, dropout, key0, key1, q, k, v; 13 keyMask | null, 14 bias | null.
Attention attention_call(Call& call) {
  Attention a{};
  a.B = call.size(0, "B"), a.Tq = call.size(1, "Tq"), a.Tk = call.size(2, "Tk"), a.D = call.size(3, "D");
  a.H = call.size(4, "numHeads"), a.stride = a.D;
  check_heads(call, a.D, a.H);
  a.scale = float(call.number(5, "scale"));
  a.causal = call.boolean(6, "causal");
  a.dropout = call.number(7, "dropoutRate");
  if (!(a.dropout >= 0 && a.dropout < 1))
    call.fail("dropoutRate: expected a number in [0, 1), found " + std::to_string(a.dropout));
  a.key0 = call.word(8, "key0"), a.key1 = call.word(9, "key1");
  a.q = call.floats(10, "q", {a.B, a.Tq, a.D});
  a.k = call.floats(11, "k", {a.B, a.Tk, a.D});
  a.v = call.floats(12, "v", {a.B, a.Tk, a.D});
  a.key_mask = call.optional_floats(13, "keyMask", {a.B, a.Tk});
  read_bias(call, 14, a);
  return a;
}

void read_output(const Call& call, Attention& a) {
  a.out = call.floats(15, "out", {a.B, a.Tq, a.D});
  a.lse = call.floats(16, "lse", {a.B, a.H, a.Tq});
}

// …, 15 out, 16 lse, 17 precision
void attention(Call& call) {
  Attention a = attention_call(call);
  read_output(call, a);
  attention_kernels(call.precision(17)).forward(a);
}

// …, 15 out, 16 lse, 17 dout, 18 dq, 19 dk, 20 dv, 21 precision
void attention_grad(Call& call) {
  Attention a = attention_call(call);
  read_output(call, a);
  a.dout = call.floats(17, "dout", {a.B, a.Tq, a.D});
  a.dq = call.floats(18, "dq", {a.B, a.Tq, a.D});
  a.dk = call.floats(19, "dk", {a.B, a.Tk, a.D});
  a.dv = call.floats(20, "dv", {a.B, a.Tk, a.D});
  const AttentionKernels& kernels = attention_kernels(call.precision(21));
  if (a.D > 0 && (a.Tq > 0 || a.Tk > 0)) kernels.backward(a);   // else nothing is written, and B may be of any size
}

// …, 15 out, 16 lse, 17 dout, 18 dbias, as long as the bias, 19 precision
void attention_grad_bias(Call& call) {
  Attention a = attention_call(call);
  read_output(call, a);
  a.dout = call.floats(17, "dout", {a.B, a.Tq, a.D});
  a.dbias = call.floats(18, "dbias", call.length(14, "bias"));
  const AttentionKernels& kernels = attention_kernels(call.precision(19));
  if (a.Tq > 0 && a.Tk > 0) kernels.grad_bias(a);
}

// What a call of packedAttention points to.
struct Packing {
  std::vector<int64_t> items, group_starts;
  std::vector<uint8_t> first;
};

// Arguments 0 … 12: Q, prefixes, pictures, starts, D, H, scale, dropout, key0, key1, q, k, v; 13 out, 14 lse.
PackedAttention packed_call(Call& call, Packing& packing) {
  PackedAttention p{};
  Attention& a = p.rows;
  p.Q = call.size(0, "prefixLength");
  const int64_t P = call.size(1, "prefixes"), B = call.length(2, "pictures");
  p.pictures = call.ints(2, "pictures", B), p.starts = call.ints(3, "starts", B + 1);
  a.B = B, a.D = call.size(4, "D"), a.H = call.size(5, "numHeads"), a.causal = true;
  check_heads(call, a.D, a.H);
  a.scale = float(call.number(6, "scale"));
  a.dropout = call.number(7, "dropoutRate");
  if (!(a.dropout >= 0 && a.dropout < 1)) call.fail("dropoutRate: expected a number in [0, 1), found " + std::to_string(a.dropout));
  a.key0 = call.word(8, "key0"), a.key1 = call.word(9, "key1");
  if (Count{P, p.Q}.value != p.starts[0]) call.fail("starts: expected to begin after the prefixes, found " + std::to_string(p.starts[0]));
  int64_t longest = 0;
  for (int64_t b = 0; b < B; b++) {
    if (p.starts[b + 1] < p.starts[b]) call.fail("starts: expected numbers that do not fall");
    longest = std::max<int64_t>(longest, p.starts[b + 1] - p.starts[b]);
  }
  a.Tq = a.Tk = p.Q + longest;
  const Count N{p.starts[B], a.D};
  a.q = call.floats(10, "q", N), a.k = call.floats(11, "k", N), a.v = call.floats(12, "v", N);
  a.out = call.floats(13, "out", N), a.lse = call.floats(14, "lse", {B, a.H, a.Tq});
  // Without prefixes each item is a group of its own.
  const int64_t groups = p.Q > 0 ? P : B;
  std::vector<std::vector<int64_t>> items(static_cast<size_t>(std::min(groups, B)));
  if (groups > B) call.fail("pictures: expected an item for each of " + std::to_string(groups) + " prefixes, found " + std::to_string(B));
  if (p.Q > 0) call.expect_range("pictures", p.pictures, B, 0, P);
  for (int64_t b = 0; b < B; b++) items[size_t(p.Q > 0 ? p.pictures[b] : b)].push_back(b);
  packing.first.assign(size_t(B), 0), packing.group_starts.push_back(0);
  for (const auto& group : items) {
    if (group.empty()) call.fail("pictures: expected an item for each prefix, found one without");
    packing.first[size_t(group[0])] = 1;
    packing.items.insert(packing.items.end(), group.begin(), group.end());
    packing.group_starts.push_back(int64_t(packing.items.size()));
  }
  p.groups = groups, p.items = packing.items.data(), p.group_starts = packing.group_starts.data(), p.first = packing.first.data();
  return p;
}

// …, 15 precision
void packed_attention(Call& call) {
  Packing packing;
  const PackedAttention p = packed_call(call, packing);
  const AttentionKernels& kernels = attention_kernels(call.precision(15));
  if (p.rows.D > 0) kernels.packed(p);
}

// …, 15 dout, 16 dq, 17 dk, 18 dv, 19 precision
void packed_attention_grad(Call& call) {
  Packing packing;
  PackedAttention p = packed_call(call, packing);
  Attention& a = p.rows;
  const Count N{p.starts[a.B], a.D};
  a.dout = call.floats(15, "dout", N);
  a.dq = call.floats(16, "dq", N), a.dk = call.floats(17, "dk", N), a.dv = call.floats(18, "dv", N);
  const AttentionKernels& kernels = attention_kernels(call.precision(19));
  if (a.D > 0) kernels.packed_backward(p);
}

// pagedAttention(B, Tq, D, H, scale, causal, q, lengths, ks, vs, rows, keyMask | null, bias | null, out); lengths, ks, vs and
// rows have one entry per page.
void paged_attention(Call& call) {
  PagedAttention a{};
  a.B = call.size(0, "B"), a.Tq = call.size(1, "Tq"), a.D = call.size(2, "D"), a.H = call.size(3, "numHeads");
  check_heads(call, a.D, a.H);
  a.scale = float(call.number(4, "scale"));
  a.causal = call.boolean(5, "causal");
  Pages pages(call, 7);
  a.q = call.floats(6, "q", {a.B, a.Tq, a.D});
  a.Tk = pages.check(call, a);
  a.key_mask = call.optional_floats(11, "keyMask", {a.B, a.Tk});
  read_bias(call, 12, a);
  a.out = call.floats(13, "out", {a.B, a.Tq, a.D});
  if (Count{a.B, a.Tq, a.D}.value == 0) return;
  PageRows rows(a);
  rows.find(pages, 0, a);
  a.k = rows.k.data(), a.v = rows.v.data();
  kernels().paged_attention(a);
}

}  // namespace

void define_attention(napi_env env, napi_value exports) {
  define<attention>(env, exports, "attention");
  define<attention_grad>(env, exports, "attentionGrad");
  define<attention_grad_bias>(env, exports, "attentionGradBias");
  define<packed_attention>(env, exports, "packedAttention");
  define<packed_attention_grad>(env, exports, "packedAttentionGrad");
  define<paged_attention>(env, exports, "pagedAttention");
}

}  // namespace blip2
