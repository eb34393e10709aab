// Which instruction-set level runs: the best that this machine has, unless a test asks for another.
#pragma once
#include "kernels.h"

namespace blip2 {

const Kernels& kernels();                  // the level in use
bool use_level(const char* name);          // false when the machine or the build lacks it
int level_count();                         // levels that this machine can run, slowest first
const char* level_name(int index);

const Products& products();                // the matrix product of that level in the precision in use
const AttentionKernels& attention_kernels();   // likewise
bool use_bfloat16(bool wanted);            // false when the level lacks it

}  // namespace blip2
