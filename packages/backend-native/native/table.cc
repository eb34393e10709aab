// The table of kernels of one instruction-set level.
#include "kernels.h"

namespace blip2 {
namespace ISA {

extern const Products float32_products;
extern const AttentionKernels float32_attention;
void paged_attention(const PagedAttention&);
void layer_norm(const float*, const float*, const float*, float, float*, float*, float*, int64_t, int64_t);
void layer_norm_grad_input(const float*, const float*, const float*, const float*, const float*, float*, int64_t,
                           int64_t);
void layer_norm_grad_weight(const float*, const float*, const float*, const float*, float*, int64_t, int64_t);
void gelu(const float*, float*, int64_t);
void gelu_grad(const float*, const float*, float*, int64_t);
void relu(const float*, float*, uint8_t*, int64_t);
void relu_grad(const float*, const uint8_t*, float*, int64_t);
void binary(const BinaryCall&);
void copy(const CopyCall&);
void dropout(const float*, float*, int64_t, float, uint32_t, uint32_t, bool);
void sum_rows(const float*, float*, int64_t, int64_t);
void sum_columns(const float*, float*, int64_t, int64_t);
double squared_sum(const float*, int64_t);
void gather_rows(const float*, const int32_t*, float*, int64_t, int64_t);
void scatter_add_rows(const float*, const int32_t*, float*, int64_t, int64_t, int64_t);
void cross_entropy(const float*, const int32_t*, float, float*, float*, int64_t, int64_t);
void cross_entropy_grad(const float*, const int32_t*, const float*, float, float, float*, int64_t, int64_t);
void loss_block(const LossBlock&, const LossRows&);
void loss_block_grad(const LossBlock&, const float*, float, float, float);
void adamw(const AdamWTensor*, int64_t, const AdamW&);
void widen(const StoredMatrix&, int64_t, float*, int64_t);
void widen_rows(const StoredMatrix&, const int32_t*, float*, int64_t);
void round_to_bfloat16(const StoredMatrix&, int64_t, uint16_t*, int64_t);

extern const Kernels kernels;
const Kernels kernels = {
    LEVEL_NAME,
    &float32_products,
    nullptr,
    &float32_attention,
    nullptr,
    paged_attention,
    layer_norm,
    layer_norm_grad_input,
    layer_norm_grad_weight,
    gelu,
    gelu_grad,
    relu,
    relu_grad,
    binary,
    copy,
    dropout,
    sum_rows,
    sum_columns,
    squared_sum,
    gather_rows,
    scatter_add_rows,
    cross_entropy,
    cross_entropy_grad,
    loss_block,
    loss_block_grad,
    adamw,
    widen,
    widen_rows,
    round_to_bfloat16,
};

}  // namespace ISA
}  // namespace blip2
