// The kernels that every instruction-set level provides: KERNEL(result, name, arguments). Define KERNEL before including this file, which
// undefines it at the end. The list serves as declarations, as members of `struct Kernels` and as the initialiser of the table, so that
// names and functions cannot be confused. Legend as in kernels.h.

KERNEL(void, paged_attention, (const PagedAttention& call))

// Without bias and mean, both null, these are RMSNorm.
KERNEL(void, layer_norm,
       (const float* x, const float* weight, const float* bias, float eps, float* y, float* mean, float* rstd, int64_t M, int64_t N))
KERNEL(void, layer_norm_grad_input,
       (const float* dy, const float* x, const float* weight, const float* mean, const float* rstd, float* dx, int64_t M, int64_t N))
KERNEL(void, layer_norm_grad_weight,
       (const float* dy, const float* x, const float* mean, const float* rstd, float* dweight, int64_t M, int64_t N))

KERNEL(void, gelu, (const float* x, float* y, int64_t n))
KERNEL(void, gelu_grad, (const float* dy, const float* x, float* dx, int64_t n))
// y = gelu_new(gate) · x
KERNEL(void, gated_gelu, (const float* gate, const float* x, float* y, int64_t n))
KERNEL(void, gated_gelu_grad, (const float* dy, const float* gate, const float* x, float* dgate, float* dx, int64_t n))
KERNEL(void, relu, (const float* x, float* y, uint8_t* positive, int64_t n))   // positive[i] = x[i] > 0
KERNEL(void, relu_grad, (const float* dy, const uint8_t* positive, float* dx, int64_t n))
KERNEL(void, binary, (const BinaryCall& call))
KERNEL(void, copy, (const CopyCall& call))
// y = or, with `add`, += the kept elements of x, scaled
KERNEL(void, dropout, (const float* x, float* y, int64_t n, double rate, uint32_t key0, uint32_t key1, bool add))

KERNEL(void, sum_rows, (const float* x, float* y, int64_t M, int64_t N))      // [M, N] → [N]
KERNEL(void, sum_columns, (const float* x, float* y, int64_t M, int64_t N))   // [M, N] → [M]
KERNEL(double, squared_sum, (const float* x, int64_t n))
KERNEL(void, gather_rows, (const float* x, const int32_t* indices, float* y, int64_t M, int64_t D))
KERNEL(void, scatter_add_rows, (const float* dy, const int32_t* indices, float* dx, int64_t M, int64_t D, int64_t rows))

KERNEL(void, cross_entropy,
       (const float* logits, const int32_t* labels, double smoothing, float* loss, float* lse, int64_t M, int64_t V))
KERNEL(void, cross_entropy_grad,
       (const float* logits, const int32_t* labels, const float* lse, float dloss, double smoothing, float* dlogits, int64_t M, int64_t V))
KERNEL(void, loss_block, (const LossBlock& block, const LossRows& rows))
// Replaces the scores by their gradient (softmax - target) · factor. The target is `rest` for every column, plus `picked` for the label's.
KERNEL(void, loss_block_grad, (const LossBlock& block, const float* lse, float factor, float rest, float picked))
KERNEL(void, adamw, (const AdamWTensor* tensors, int64_t count, const AdamW& settings))

KERNEL(void, dequantise, (const WeightView& w, float* to))
KERNEL(void, dequantise_rows, (const WeightView& w, const int32_t* indices, float* y, int64_t M))
KERNEL(void, round_to_bfloat16, (const WeightView& w, uint16_t* to))
// The parts of the int8 encoding from a weight in another one and the factors of its columns.
KERNEL(void, quantise, (const WeightView& w, const float* factors, uint8_t* blocks, float* scales))
// Likewise of the int4 encoding.
KERNEL(void, quantise_int4, (const WeightView& w, const float* factors, uint8_t* codes, uint8_t* steps, float* scales))

// R [K, K] with R·Rᵀ = xᵀ·x + damping · its mean diagonal, in the upper triangle; below it are other numbers. False if there is none. The room has
// K · max(kRootBlock, left_out) floats.
KERNEL(bool, input_root, (const InputRows& x, float damping, float* room, float* root))
// The int4 encoding by GPTQ, with the root of its inputs. The room has rows · (columns + kGroupSide) floats.
KERNEL(void, quantise_int4_gptq, (const WeightView& w, const float* factors, const float* root, float* room, const Int4Parts& to))

// The largest magnitude of each column, y [columns]; infinite or NaN if the column has such a number.
KERNEL(void, column_maxima, (const WeightView& w, float* y))

#undef KERNEL
