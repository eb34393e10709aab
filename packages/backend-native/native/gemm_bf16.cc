// Matmul whose operands are rounded to bfloat16 while they are packed; sums, bias and result are float32. Needs AVX512-BF16. This,
// attention_bf16.cc and gemm_amx.cc are the only files compiled for the levels with bfloat16 (see build.mjs).
#include "bfloat16.h"
#include "gemm_stored.h"

namespace blip2 {
namespace ISA {
namespace {

// Few rows are computed in the same way as many, so that results do not depend on whether b was packed before.
void gemm(const Gemm& g) {
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) return fill_empty(g);
  const auto b = right_operand(g.b);
  gemm_blocked<Registers<BFloat16>>(g, packable<BFloat16>(b));
}

}  // namespace

extern const MatmulKernels bfloat16_matmul;
const MatmulKernels bfloat16_matmul = {gemm, packed_floats<BFloat16>, pack_all<BFloat16>, gemm_stored<Registers<BFloat16>>};

}  // namespace ISA
}  // namespace blip2
