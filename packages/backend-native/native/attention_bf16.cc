// Attention whose matmuls round their operands to bfloat16. Needs AVX512-BF16; the levels with AMX use it too.
#include "attention_blocks.h"
#include "bfloat16.h"

namespace blip2 {
namespace ISA {

extern const AttentionKernels bfloat16_attention;
constexpr AttentionKernels bfloat16_attention = attention_kernels_of<BFloat16>();

}  // namespace ISA
}  // namespace blip2
