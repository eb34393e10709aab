// Attention whose products round their operands to bfloat16. For AVX512-BF16; it serves the levels with AMX as well.
#include "attention_blocks.h"
#include "bfloat16.h"

namespace blip2 {
namespace ISA {

extern const AttentionKernels bfloat16_attention;
const AttentionKernels bfloat16_attention = {attention<BFloat16>, attention_grad<BFloat16>};

}  // namespace ISA
}  // namespace blip2
