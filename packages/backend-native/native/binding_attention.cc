// Attention, exported to JavaScript (typed in src/addon.ts).
#include <vector>

#include "binding.h"
#include "dispatch.h"

namespace blip2 {
namespace {

void check_heads(const Call& call, int64_t D, int64_t H) {
  if (H < 1 || D % H != 0)
    call.fail("numHeads: expected a divisor of the width " + std::to_string(D) + ", found " + std::to_string(H));
}

// Argument i: bias [B, H, Tq, Tk] or, shared by all items, [1, H, Tq, Tk] | null.
template <class A>
void read_bias(const Call& call, size_t i, A& a) {
  const int64_t size = a.H * a.Tq * a.Tk;
  a.shared_bias = call.given(i, "bias") && call.length(i, "bias") == size;
  a.bias = call.optional_floats(i, "bias", a.shared_bias ? size : a.B * size);
}

// Arguments 0 … 12: B, Tq, Tk, D, H, scale, causal, dropout, key0, key1, q, k, v; 13 keyMask | null, 14 bias | null.
Attention attention_call(Call& call) {
  Attention a{};
  a.B = call.size(0, "B"), a.Tq = call.size(1, "Tq"), a.Tk = call.size(2, "Tk"), a.D = call.size(3, "D");
  a.H = call.size(4, "numHeads");
  check_heads(call, a.D, a.H);
  a.scale = float(call.number(5, "scale"));
  a.causal = call.boolean(6, "causal");
  a.dropout = float(call.number(7, "dropoutRate"));
  a.key0 = call.word(8, "key0"), a.key1 = call.word(9, "key1");
  a.q = call.floats(10, "q", a.B * a.Tq * a.D);
  a.k = call.floats(11, "k", a.B * a.Tk * a.D);
  a.v = call.floats(12, "v", a.B * a.Tk * a.D);
  a.key_mask = call.optional_floats(13, "keyMask", a.B * a.Tk);
  read_bias(call, 14, a);
  return a;
}

void read_output(const Call& call, Attention& a) {
  a.out = call.floats(15, "out", a.B * a.Tq * a.D);
  a.lse = call.floats(16, "lse", a.B * a.H * a.Tq);
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
  a.dout = call.floats(17, "dout", a.B * a.Tq * a.D);
  a.dq = call.floats(18, "dq", a.B * a.Tq * a.D);
  a.dk = call.floats(19, "dk", a.B * a.Tk * a.D);
  a.dv = call.floats(20, "dv", a.B * a.Tk * a.D);
  attention_kernels(call.precision(21)).backward(a);
}

// …, 15 out, 16 lse, 17 dout, 18 dbias, as long as the bias, 19 precision
void attention_grad_bias(Call& call) {
  Attention a = attention_call(call);
  read_output(call, a);
  a.dout = call.floats(17, "dout", a.B * a.Tq * a.D);
  a.dbias = call.floats(18, "dbias", call.length(14, "bias"));
  attention_kernels(call.precision(19)).grad_bias(a);
}

// Page `page` of the list at argument `i` is [rows, T, D]. Writes, for each item b, the address of each of its T rows from to[b * Tk] on.
void find_rows(const Call& call, size_t i, const char* what, int64_t page, int64_t T, const PagedAttention& a,
               const float** to) {
  int64_t length;
  const float* data = call.floats_of_list(i, what, page, &length);
  const int64_t size = T * a.D, rows = size > 0 ? length / size : 0;
  if (length != rows * size || rows < 1)
    call.fail(std::string(what) + "[" + std::to_string(page) + "]: expected whole rows of " + std::to_string(size) +
              " elements, found " + std::to_string(length));
  const int32_t* picked = call.optional_ints_of_list(10, "rows", page, a.B);
  if (picked) call.expect_range("rows", picked, a.B, 0, rows);
  else if (rows != a.B) call.fail(std::string(what) + ": expected " + std::to_string(a.B) + " rows, found " + std::to_string(rows));
  for (int64_t b = 0; b < a.B; b++)
    for (int64_t j = 0; j < T; j++) to[b * a.Tk + j] = data + ((picked ? picked[b] : b) * T + j) * a.D;
}

// pagedAttention(B, Tq, D, H, scale, causal, q, lengths, ks, vs, rows, keyMask | null, bias | null, out); lengths, ks, vs and
// rows have one entry per page.
void paged_attention(Call& call) {
  PagedAttention a{};
  a.B = call.size(0, "B"), a.Tq = call.size(1, "Tq"), a.D = call.size(2, "D"), a.H = call.size(3, "numHeads");
  check_heads(call, a.D, a.H);
  a.scale = float(call.number(4, "scale"));
  a.causal = call.boolean(5, "causal");
  a.q = call.floats(6, "q", a.B * a.Tq * a.D);
  const int64_t pages = call.list_length(7, "lengths");
  for (const size_t list : {8, 9, 10}) call.expect_list(list, "each list", pages);
  std::vector<int64_t> lengths;
  for (int64_t page = 0; page < pages; page++) {
    lengths.push_back(call.size_of_list(7, "lengths", page));
    a.Tk += lengths.back();
  }
  std::vector<const float*> k(a.B * a.Tk), v(a.B * a.Tk);
  int64_t at = 0;
  for (int64_t page = 0; page < pages; at += lengths[page++]) {
    find_rows(call, 8, "k", page, lengths[page], a, k.data() + at);
    find_rows(call, 9, "v", page, lengths[page], a, v.data() + at);
  }
  a.k = k.data(), a.v = v.data();
  a.key_mask = call.optional_floats(11, "keyMask", a.B * a.Tk);
  read_bias(call, 12, a);
  a.out = call.floats(13, "out", a.B * a.Tq * a.D);
  kernels().paged_attention(a);
}

}  // namespace

void define_attention(napi_env env, napi_value exports) {
  define<attention>(env, exports, "attention");
  define<attention_grad>(env, exports, "attentionGrad");
  define<attention_grad_bias>(env, exports, "attentionGradBias");
  define<paged_attention>(env, exports, "pagedAttention");
}

}  // namespace blip2
