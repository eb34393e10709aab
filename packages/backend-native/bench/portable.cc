// Compares the matmuls of the portable level with plain loops, and int8 matmul by arm64's dot product with the portable one, without Node,
// for processors that are only emulated. Not published. The README has the commands.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "thread_pool.h"

namespace blip2 {
namespace portable {
extern const MatmulKernels float32_matmul;
extern const Int8Matmul int8_matmul;
void quantise(const WeightView& w, const float* factors, uint8_t* blocks, float* scales);
}
namespace dotprod {
extern const Int8Matmul int8_matmul;
}
}  // namespace blip2

using namespace blip2;

namespace {

// Quarters between -4 and 4. Every type represents them and sums of a few thousand of their products, so results are exact.
float number(int64_t i) { return float(int64_t(i * 2654435761u % 1031 % 33) - 16) / 4; }

uint16_t float16_bits(float value) {   // only for such quarters
  if (value == 0) return 0;
  int exponent;
  const float fraction = std::frexp(std::fabs(value), &exponent);
  return uint16_t((value < 0 ? 0x8000 : 0) | (exponent + 14) << 10 | int(fraction * 2048 - 1024));
}

struct File {
  std::vector<unsigned char> bytes;
  WeightView weight;
  File(Encoding encoding, const std::vector<float>& values, int64_t rows, int64_t columns) {
    const size_t width = encoding == Encoding::float32 ? 4 : 2;
    bytes.resize(values.size() * width + 1);   // from an odd address
    for (size_t i = 0; i < values.size(); i++) {
      uint32_t bits;
      std::memcpy(&bits, &values[i], 4);
      const uint16_t half = encoding == Encoding::bfloat16 ? uint16_t(bits >> 16) : float16_bits(values[i]);
      std::memcpy(&bytes[1 + i * width], width == 4 ? static_cast<void*>(&bits) : const_cast<uint16_t*>(&half), width);
    }
    weight = {encoding, rows, columns, {&bytes[1]}};
  }
};

int failures = 0;

void compare(const char* what, const std::vector<float>& found, const std::vector<float>& expected) {
  if (found == expected) return;
  failures++;
  std::printf("%s differs, %zu numbers\n", what, found.size());
}

void check(int64_t M, int64_t N, int64_t K) {
  std::vector<float> x(size_t(M * K)), w(size_t(N * K)), wt(w), want(size_t(M * N)), y(want);
  for (size_t i = 0; i < x.size(); i++) x[i] = number(int64_t(i));
  for (size_t i = 0; i < w.size(); i++) w[i] = number(int64_t(i) + 7);
  for (int64_t n = 0; n < N; n++)
    for (int64_t k = 0; k < K; k++) wt[size_t(k * N + n)] = w[size_t(n * K + k)];
  for (int64_t m = 0; m < M; m++)
    for (int64_t n = 0; n < N; n++)
      for (int64_t k = 0; k < K; k++) want[size_t(m * N + n)] += x[size_t(m * K + k)] * w[size_t(n * K + k)];
  const MatmulKernels& matmul = portable::float32_matmul;
  matmul.gemm({M, N, K, {x.data(), K, 1}, {w.data(), 1, K}, nullptr, y.data(), N, false});
  compare("x · wᵀ", y, want);
  matmul.gemm({M, N, K, {x.data(), K, 1}, {wt.data(), N, 1}, nullptr, y.data(), N, false});
  compare("x · w", y, want);
  for (Encoding encoding : {Encoding::float32, Encoding::bfloat16, Encoding::float16}) {
    matmul.gemm_stored(x.data(), M, File(encoding, w, N, K).weight, true, nullptr, y.data());
    compare("stored, x · wᵀ", y, want);
    matmul.gemm_stored(x.data(), M, File(encoding, wt, K, N).weight, false, nullptr, y.data());
    compare("stored, x · w", y, want);
  }
}

// Both directions, to the bit, with thirds so that rounding matters.
void check_int8(int64_t M, int64_t N, int64_t K) {
  std::vector<float> w(size_t(N) * size_t(K)), factors(size_t(K), 1.f), scales(size_t(N), 0.f), x(size_t(M) * size_t(N + K));
  for (size_t i = 0; i < w.size(); i++) w[i] = number(int64_t(i) + 7) / 3;
  for (size_t i = 0; i < x.size(); i++) x[i] = number(int64_t(i)) / 3;
  for (size_t i = 0; i < factors.size(); i++) factors[i] = 1 + float(i % 5) / 3;
  std::vector<uint8_t> room(size_t(blocks_of(N) * blocks_of(K) * kBlockBytes + 64));
  uint8_t* blocks = &room[64 - uintptr_t(&room[0]) % 64];
  portable::quantise({Encoding::float32, N, K, {w.data()}}, factors.data(), blocks, scales.data());
  const WeightView weight{Encoding::int8, N, K, {blocks, scales.data(), factors.data()}};
  for (bool transposed : {true, false}) {
    std::vector<float> want(size_t(M * (transposed ? N : K))), y(want.size());
    portable::int8_matmul.times(x.data(), M, weight, transposed, {}, want.data());
    dotprod::int8_matmul.times(x.data(), M, weight, transposed, {}, y.data());
    compare(transposed ? "int8, x · wᵀ" : "int8, x · w", y, want);
  }
}

}  // namespace

int main() {
  set_threads(2);
  for (int64_t M : {1, 2, 3, 5, 12, 17, 64, 130})
    for (int64_t N : {1, 4, 9, 33, 130})
      for (int64_t K : {1, 7, 32, 65, 500}) check(M, N, K), check_int8(M, N, K);
  std::printf(failures ? "%d results differ\n" : "all results agree\n", failures);
  return failures > 0;
}
