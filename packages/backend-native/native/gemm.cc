// Matmul in float32.
#include "gemm_stored.h"

namespace blip2 {
namespace ISA {
namespace {

float dot(const float* x, const float* y, int64_t n) {
  vf s0{}, s1{}, s2{}, s3{};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
    s0 += load(x + i) * load(y + i);
    s1 += load(x + i + W) * load(y + i + W);
    s2 += load(x + i + 2 * W) * load(y + i + 2 * W);
    s3 += load(x + i + 3 * W) * load(y + i + 3 * W);
  }
  for (; i + W <= n; i += W) s0 += load(x + i) * load(y + i);
  if (i < n) s1 += load_part(x + i, n - i) * load_part(y + i, n - i);
  return sum_of((s0 + s1) + (s2 + s3));
}

// Few rows times a transposed matrix (x·Wᵀ in decoding): the cost is reading b once, so it is not packed.
void multiply_few_rows(const Gemm& g) {
  parallel_chunks(g.N, larger(8, 65536 / g.K), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++)
      for (int64_t i = 0; i < g.M; i++) {
        const float sum = dot(g.a.data + i * g.a.row_stride, g.b.data + j * g.b.column_stride, g.K);
        float& c = g.c[i * g.ldc + j];
        c = sum + (g.accumulate ? c : g.epilogue.bias ? g.epilogue.bias[j] : 0.f);
      }
    finish(g, 0, g.M, begin, end - begin);
  });
}

void gemm(const Gemm& g) {
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) return fill_empty(g);
  if (g.M <= 4 && g.a.column_stride == 1 && g.b.row_stride == 1) return multiply_few_rows(g);
  const auto b = right_operand(g.b);
  gemm_blocked<Registers<Float32>>(g, packable<Float32>(b));
}

}  // namespace

extern const MatmulKernels float32_matmul;
const MatmulKernels float32_matmul = {gemm, packed_floats<Float32>, pack_all<Float32>, gemm_stored<Registers<Float32>>};

}  // namespace ISA
}  // namespace blip2
