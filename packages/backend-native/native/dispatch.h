// Chooses the instruction-set level: the best that this processor supports, unless a test selects another.
#pragma once
#include "kernels.h"

namespace blip2 {

const Kernels& kernels();       // of the level in use
bool use_level(const char* name);   // false if this processor or build does not support it
int level_count();              // levels this processor supports, slowest first
const char* level_name(int index);

const MatmulKernels& matmul_kernels();         // of the level and precision in use
const AttentionKernels& attention_kernels();   // likewise
bool use_bfloat16(bool wanted);                // false if the level does not support it

}  // namespace blip2
