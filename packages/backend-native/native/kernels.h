// The kernels that every instruction-set level provides, as one table of plain functions.
// Each level compiles the same sources into its own namespace (see build.mjs); dispatch.cc picks a table at run time.
// Legend: M rows, N columns, K the summed size; B batch, H heads, T sequence length, D width. All matrices are row major.
#pragma once
#include <cstdint>

#include "stored_matrix.h"

namespace blip2 {

// A matrix seen through strides: element (i, j) lies at data[i * row_stride + j * column_stride].
struct Strided {
  const float* data;
  int64_t row_stride, column_stride;
};

enum class Activation { none, relu, gelu };

// What becomes of a product before it is written: activation(product + bias [N]?) + residual [M, N]?.
struct Ending {
  const float* bias;
  Activation activation;
  const float* residual;

  Ending(const float* bias = nullptr, Activation activation = Activation::none, const float* residual = nullptr)
      : bias(bias), activation(activation), residual(residual) {}
};

// c [M, N] (rows ldc apart, those of the residual too) = a [M, K] · b [K, N], brought to its end; or += a · b when accumulate is
// set (the ending is then ignored).
// packed_b, when not null, is what `pack` of the same products made of b, 64-byte aligned.
struct Gemm {
  int64_t M, N, K;
  Strided a, b;
  Ending end;
  float* c;
  int64_t ldc;
  bool accumulate;
  const float* packed_b = nullptr;
};

// The matrix product in one precision. Its packed form of b [K, N] takes packed_floats(N, K) floats of memory.
struct Products {
  void (*gemm)(const Gemm&);
  int64_t (*packed_floats)(int64_t N, int64_t K);
  void (*pack)(const Strided& b, int64_t N, int64_t K, float* to);
  // With a matrix that stays as its file stores it: y [M, rows] = x [M, columns] · wᵀ when turned, else
  // y [M, columns] = x [M, rows] · w; brought to its end. Rounded as in `gemm`.
  void (*gemm_stored)(const float* x, int64_t M, const StoredMatrix& w, bool turned, const Ending& end, float* y);
};

// Head h owns the columns h * D / H … of q, k, v and out. key_mask [B, Tk] may be null. See NnAttention in kernels.ts.
struct Attention {
  int64_t B, Tq, Tk, D, H;
  const float *q, *k, *v, *key_mask;
  float scale;
  bool causal;
  float dropout;
  uint32_t key0, key1;
  float *out, *lse;                  // written by the forward pass, read by the backward pass
  const float* dout;                 // backward only
  float *dq, *dk, *dv;               // backward only
};

// Attention in one precision, to which the operands of its products are rounded.
struct AttentionKernels {
  void (*forward)(const Attention&);
  void (*backward)(const Attention&);
};

// Forward only, over keys and values anywhere: key j of item b is the row [D] at k[b * Tk + j], its value at v[b * Tk + j].
// See NnPagedAttention in kernels.ts.
struct PagedAttention {
  int64_t B, Tq, Tk, D, H;
  const float* q;
  const float* const* k;
  const float* const* v;
  const float* key_mask;
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

// What AdamW does to one tensor of n elements; the new values go to arrays of their own.
struct AdamWTensor {
  const float *param, *grad, *m, *v;
  float *new_param, *new_m, *new_v;
  int64_t n;
  float weight_decay;
};

struct AdamW {
  float lr, beta1, beta2, eps, c1, c2, scale;
};

// What the loss needs to know of each row's scores, gathered while blocks of columns pass by: the largest, Σ exp(score -
// largest), the score of the label and Σ score.
struct LossRows {
  double *sum, *total;
  float *largest, *picked;
};

// Columns from … from + N of the scores [M, V], rows N apart.
struct LossBlock {
  float* scores;
  const int32_t* labels;
  int64_t from, M, N;
};

struct Kernels {
  const char* name;

  const Products* float32;
  const Products* bfloat16;   // operands rounded to bfloat16, sums in float32; null where the machine has no such product
  const AttentionKernels* float32_attention;
  const AttentionKernels* bfloat16_attention;   // null as above
  void (*paged_attention)(const PagedAttention&);

  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, float* y, float* mean,
                     float* rstd, int64_t M, int64_t N);
  void (*layer_norm_grad_input)(const float* dy, const float* x, const float* weight, const float* mean,
                                const float* rstd, float* dx, int64_t M, int64_t N);
  void (*layer_norm_grad_weight)(const float* dy, const float* x, const float* mean, const float* rstd,
                                 float* dweight, int64_t M, int64_t N);

  void (*gelu)(const float* x, float* y, int64_t n);
  void (*gelu_grad)(const float* dy, const float* x, float* dx, int64_t n);
  void (*relu)(const float* x, float* y, uint8_t* positive, int64_t n);   // positive[i] = x[i] > 0
  void (*relu_grad)(const float* dy, const uint8_t* positive, float* dx, int64_t n);
  void (*binary)(const BinaryCall&);
  void (*copy)(const CopyCall&);
  // y = or, with `add`, += the kept elements of x, scaled
  void (*dropout)(const float* x, float* y, int64_t n, float rate, uint32_t key0, uint32_t key1, bool add);

  void (*sum_rows)(const float* x, float* y, int64_t M, int64_t N);        // [M, N] → [N]
  void (*sum_columns)(const float* x, float* y, int64_t M, int64_t N);     // [M, N] → [M]
  double (*squared_sum)(const float* x, int64_t n);
  void (*gather_rows)(const float* x, const int32_t* indices, float* y, int64_t M, int64_t D);
  void (*scatter_add_rows)(const float* dy, const int32_t* indices, float* dx, int64_t M, int64_t D, int64_t rows);

  void (*cross_entropy)(const float* logits, const int32_t* labels, float smoothing, float* loss, float* lse,
                        int64_t M, int64_t V);
  void (*cross_entropy_grad)(const float* logits, const int32_t* labels, const float* lse, float dloss,
                             float smoothing, float* dlogits, int64_t M, int64_t V);
  void (*loss_block)(const LossBlock& block, const LossRows& rows);
  // scores ← their gradient: (softmax - target) · factor, the target of each column being `rest`, the label's `picked` more.
  void (*loss_block_grad)(const LossBlock& block, const float* lse, float factor, float rest, float picked);
  void (*adamw)(const AdamWTensor* tensors, int64_t count, const AdamW& h);

  void (*widen)(const StoredMatrix& w, int64_t begin, float* to, int64_t n);           // n elements from `begin` on
  void (*widen_rows)(const StoredMatrix& w, const int32_t* indices, float* y, int64_t M);
  void (*round_to_bfloat16)(const StoredMatrix& w, int64_t begin, uint16_t* to, int64_t n);
};

}  // namespace blip2
