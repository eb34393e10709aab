// Attention in float32.
#include "attention_blocks.h"

namespace blip2 {
namespace ISA {

extern const AttentionKernels float32_attention;
const AttentionKernels float32_attention = {attention<Float32>, attention_grad<Float32>};

}  // namespace ISA
}  // namespace blip2
