// Attention in float32.
#include "attention_blocks.h"

namespace blip2 {
namespace ISA {

extern const AttentionKernels float32_attention;
constexpr AttentionKernels float32_attention = attention_kernels_of<Float32>();

}  // namespace ISA
}  // namespace blip2
