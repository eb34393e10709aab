// The parts of the matrix product that other kernels of the same level use.
#pragma once
#include "simd.h"

namespace blip2 {
namespace ISA {

// The float32 product on the calling thread alone, for use inside a task. Meant for small sizes: nothing is blocked. Of the ending it knows the bias only.
// `roomy`: rows of c have room for whole vectors, and what lies past N may be overwritten.
void gemm_local(const Gemm& g, bool roomy = false);

}  // namespace ISA
}  // namespace blip2
