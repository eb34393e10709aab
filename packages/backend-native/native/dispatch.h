// Chooses the instruction-set level: the best that this processor supports, unless a test selects another.
#pragma once
#include "kernels.h"

namespace blip2 {

const Kernels& kernels();       // of the level in use
bool use_level(const char* name);   // false if this processor or build does not support it
int level_count();              // levels this processor supports, slowest first
const char* level_name(int index);

// Of matmuls, including those of attention: bfloat16 rounds the operands and sums in float32.
enum class Precision { float32, bfloat16 };

bool has_bfloat16();                                    // whether the level in use supports it
const MatmulKernels& matmul_kernels(Precision);         // of the level in use
const AttentionKernels& attention_kernels(Precision);   // likewise

}  // namespace blip2
