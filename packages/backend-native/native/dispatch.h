// Chooses the instruction-set level: the best that this processor supports, unless a test selects another.
#pragma once
#include "kernels.h"

namespace blip2 {

const Kernels& kernels();       // of the level in use
bool use_level(const char* name);   // false if this processor or build does not support it
int level_count();              // levels this processor supports, slowest first
const char* level_name(int index);

// Of matmuls, including those of attention: bfloat16 rounds the operands and sums in float32. int8 is for matmuls with int8 and int4 weights; the
// others are then in bfloat16, or in float32 if the level does not support that.
enum class Precision { float32, bfloat16, int8 };

bool has_bfloat16();                                    // whether the level in use supports it
bool rounds(Precision);                                 // whether matmuls of other weights are in bfloat16
const MatmulKernels& matmul_kernels(Precision);         // of the level in use, for other weights
const AttentionKernels& attention_kernels(Precision);   // likewise
// `gemm_stored` for any encoding.
void times_stored(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y, Precision precision);

}  // namespace blip2
