// The types of the kernels and the table of plain functions that every instruction-set level provides (kernel_list.h).
// Each level compiles the same sources into its own namespace (see build.mjs); dispatch.cc selects a table at run time.
// Legend: M rows, N columns, K the summed size; B batch, H heads, T sequence length, D width. All matrices are row major.
#pragma once
#include <cstdint>

#include "weight_view.h"

namespace blip2 {

// A matrix seen through strides: element (i, j) lies at data[i * row_stride + j * column_stride].
struct Strided {
  const float* data;
  int64_t row_stride, column_stride;
};

enum class Activation { none, relu, gelu };

// What is applied to a matmul's result before it is written: activation(result + bias [N]?) + residual [M, N]?.
struct Epilogue {
  const float* bias;
  Activation activation;
  const float* residual;

  Epilogue(const float* bias = nullptr, Activation activation = Activation::none, const float* residual = nullptr)
      : bias(bias), activation(activation), residual(residual) {}
};

// c [M, N] = a [M, K] · b [K, N] and the epilogue; or c += a · b without it when `accumulate` is set. Rows of c and of the residual
// are ldc apart. packed_b, if not null, is b as `pack` of the same MatmulKernels wrote it, 64-byte aligned.
struct Gemm {
  int64_t M, N, K;
  Strided a, b;
  Epilogue epilogue;
  float* c;
  int64_t ldc;
  bool accumulate;
  const float* packed_b = nullptr;
};

// Matmul in one precision. Its packed form of b [K, N] takes packed_floats(N, K) floats of memory.
struct MatmulKernels {
  void (*gemm)(const Gemm&);
  int64_t (*packed_floats)(int64_t N, int64_t K);
  void (*pack)(const Strided& b, int64_t N, int64_t K, float* to);
  // With a stored weight: y [M, rows] = x [M, columns] · wᵀ when transposed, else y [M, columns] = x [M, rows] · w, and the
  // epilogue. Operands are rounded as in `gemm`.
  void (*gemm_stored)(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y);
};

// Inputs of a linear layer, of which some rows are left out: all [M, K], out [left_out, K].
struct InputRows {
  const float *all, *out;
  int64_t M, left_out, K;
};
constexpr int64_t kRootBlock = 256;   // the columns of a block of the root

// The parts of an int4 weight that are made; its factors are given.
struct Int4Parts {
  uint8_t *codes, *steps;
  float* scales;
};

// Matmul with an int8 or int4 weight: rows of x are rounded to int8 too, each with a scale of its own, and products are summed as integers.
struct Int8Matmul {
  // As `gemm_stored`.
  void (*times)(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y);
  void (*times_int4)(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y);
};

// Head h owns the columns h * D / H … of q, k, v and out. key_mask [B, Tk] may be null, bias [B, H, Tq, Tk] too; a shared one
// is [H, Tq, Tk] for all items. See NnAttention in kernels.ts.
struct Attention {
  int64_t B, Tq, Tk, D, H;
  int64_t stride;   // from one row of q, k and v to the next: D, unless q, k and v are parts of wider rows (forward only)
  const float *q, *k, *v, *key_mask, *bias;
  bool shared_bias;
  float scale;
  bool causal;
  double dropout;   // 1 - dropout is rounded to float, not dropout
  uint32_t key0, key1;
  float *out, *lse;                  // written by the forward pass, read by the backward pass
  const float* dout;                 // backward only
  float *dq, *dk, *dv;               // backward only
  float* dbias;                      // grad_bias only
};

// Causal attention of B items whose rows are packed: q, k, v, out … of `rows` are [N, D], and item b has the Q rows of its picture's
// prefix, from pictures[b] * Q on, then rows starts[b] … starts[b + 1] - 1. Tq = Tk is the length of the longest item, of which lse [B, H, Tq]
// and the random numbers of dropout have room. See NnPackedAttention in kernels.ts.
struct PackedAttention {
  Attention rows;
  int64_t Q;
  const int32_t *pictures, *starts;   // [B], [B + 1]
  // The items of each picture in their order: items[group_starts[g]] … of group g. Without prefixes, each item is a group.
  int64_t groups;
  const int64_t *items, *group_starts;
  const uint8_t* first;               // [B]: whether an item is the first of its picture
};

// Attention in one precision: the operands of its matmuls are rounded to it.
struct AttentionKernels {
  void (*forward)(const Attention&);
  void (*backward)(const Attention&);
  void (*grad_bias)(const Attention&);
  void (*packed)(const PackedAttention&);
  void (*packed_backward)(const PackedAttention&);
};

// Forward only, with keys and values at any address: key j of item b is the row [D] at k[b * Tk + j], its value at v[b * Tk + j].
// See NnPagedAttention in kernels.ts.
struct PagedAttention {
  int64_t B, Tq, Tk, D, H;
  const float* q;
  const float* const* k;
  const float* const* v;
  const float *key_mask, *bias;
  bool shared_bias;
  float scale;
  bool causal;
  float* out;
};

enum class Binary { add, sub, mul, div, maximum, minimum };

constexpr int kMaxRank = 8;

// y = op(a, b) over `shape`; a stride of 0 repeats the operand along that axis. y is contiguous.
struct BinaryCall {
  Binary op;
  int rank;
  int64_t shape[kMaxRank], a_strides[kMaxRank], b_strides[kMaxRank];
  const float *a, *b;
  float* y;
};

// Copies 32-bit elements between two strided views of the same shape.
struct CopyCall {
  int rank;
  int64_t shape[kMaxRank], from_strides[kMaxRank], to_strides[kMaxRank];
  const uint32_t* from;
  uint32_t* to;
};

// One tensor of n elements that AdamW updates. The new values are written to separate arrays.
struct AdamWTensor {
  const float *param, *grad, *m, *v;
  float *new_param, *new_m, *new_v;
  int64_t n;
  float decay;   // 1 - lr · weight decay
};

// The factors of an update. They are combined in double and rounded once: 1 - 0.999f would be off by 1.3e-5.
struct AdamW {
  float scale;          // of the gradient
  bool from_m;          // m ← m + toward · (g - m), else g + toward · (g - m), as torch.lerp
  float toward;         // 1 - beta1, else -beta1
  float beta2, rest2;   // v ← beta2 · v + (1 - beta2) · g²
  float root2, eps;     // √(1 - beta2^t)
  float step;           // lr / (1 - beta1^t)
};

// Running values of each row of scores, updated block of columns by block: the largest score, Σ exp(score - largest), the label's
// score (`picked`) and Σ score (`total`).
struct LossRows {
  double *sum, *total;
  float *largest, *picked;
};

// Columns from … from + N - 1 of the scores [M, V]; rows are N apart.
struct LossBlock {
  float* scores;
  const int32_t* labels;
  int64_t from, M, N;
};

struct Kernels {
  const char* level;
  const MatmulKernels* float32_matmul;
  const Int8Matmul* int8_matmul;          // the same bits at every level, except activations
  const MatmulKernels* bfloat16_matmul;   // operands rounded to bfloat16, sums in float32; null if not supported
  const AttentionKernels* float32_attention;
  const AttentionKernels* bfloat16_attention;   // null if not supported
#define KERNEL(result, name, arguments) result(*name) arguments;
#include "kernel_list.h"
};

}  // namespace blip2
