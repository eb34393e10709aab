// Matmul, exported to JavaScript.
#include "binding.h"
#include "dispatch.h"

namespace blip2 {
namespace {

// A matrix [rows, columns], which may be transposed in memory.
Strided view(const float* data, int64_t rows, int64_t columns, bool transposed) {
  return {data, transposed ? 1 : columns, transposed ? rows : 1};
}

// gemm(a, aTransposed, b, bTransposed, bias | null, c, batch, M, N, K, aRepeats, bRepeats, precision)
// a is [M, K] or, transposed, [K, M]; b is [K, N] or [N, K]; a repeated operand has one matrix for the whole batch.
void gemm(Call& call) {
  const bool a_transposed = call.boolean(1, "aTransposed"), b_transposed = call.boolean(3, "bTransposed");
  const int64_t batch = call.size(6, "batch"), M = call.size(7, "M"), N = call.size(8, "N"), K = call.size(9, "K");
  const bool a_repeats = call.boolean(10, "aRepeats"), b_repeats = call.boolean(11, "bRepeats");
  const float* a = call.floats(0, "a", {a_repeats ? 1 : batch, M, K});
  const float* b = call.floats(2, "b", {b_repeats ? 1 : batch, K, N});
  const float* bias = call.optional_floats(4, "bias", N);
  float* c = call.floats(5, "c", {batch, M, N});
  const MatmulKernels& matmul = matmul_kernels(call.precision(12));
  if (M == 0 || N == 0) return;   // batch may be of any size
  for (int64_t i = 0; i < batch; i++) {
    const float *ai = a + (a_repeats ? 0 : i * M * K), *bi = b + (b_repeats ? 0 : i * K * N);
    matmul.gemm({M, N, K, view(ai, M, K, a_transposed), view(bi, K, N, b_transposed), bias, c + i * M * N, N, false});
  }
}

// gemmAdd(a, b, bTransposed, c, M, N, K, precision): c += a · b
void gemm_add(Call& call) {
  const int64_t M = call.size(4, "M"), N = call.size(5, "N"), K = call.size(6, "K");
  const Strided a = view(call.floats(0, "a", {M, K}), M, K, false);
  const Strided b = view(call.floats(1, "b", {K, N}), K, N, call.boolean(2, "bTransposed"));
  matmul_kernels(call.precision(7)).gemm({M, N, K, a, b, nullptr, call.floats(3, "c", {M, N}), N, true});
}

// Packed weights begin at the first multiple of 64 bytes of their array.
constexpr int64_t kAlignment = 64, kSlack = kAlignment / sizeof(float);

// N and K are rounded up to whole panels, by less than kPanel each.
Count packed_count(int64_t N, int64_t K, const MatmulKernels& matmul) {
  constexpr int64_t kPanel = 64;
  return Count{N + kPanel, K + kPanel}.value < 0 ? -1 : matmul.packed_floats(N, K) + kSlack;
}

float* aligned(float* array) {
  return reinterpret_cast<float*>((uintptr_t(array) + kAlignment - 1) / kAlignment * kAlignment);
}

float* packed_argument(Call& call, size_t i, int64_t N, int64_t K, const MatmulKernels& matmul) {
  return aligned(call.floats(i, "packed", packed_count(N, K, matmul)));
}

// packedLength(N, K, precision): the length of the array that `pack` fills
void packed_length(Call& call) {
  const Count n = packed_count(call.size(0, "N"), call.size(1, "K"), matmul_kernels(call.precision(2)));
  if (n.value < 0 || n.value >= int64_t(1) << 53) call.fail("expected a matrix that fits in memory, N * K is too large");
  call.give(double(n.value));
}

// pack(b, bTransposed, packed, N, K, precision): packs b for timesPacked in that precision
void pack(Call& call) {
  const int64_t N = call.size(3, "N"), K = call.size(4, "K");
  const float* b = call.floats(0, "b", {K, N});
  const MatmulKernels& matmul = matmul_kernels(call.precision(5));
  matmul.pack(view(b, K, N, call.boolean(1, "bTransposed")), N, K, packed_argument(call, 2, N, K, matmul));
}

// bias | null, activation, residual | null: three arguments from the i-th on
Epilogue epilogue_argument(Call& call, size_t i, int64_t M, int64_t N) {
  const Activation activation = activation_argument(call, i + 1);
  return {call.optional_floats(i, "bias", N), activation, call.optional_floats(i + 2, "residual", {M, N})};
}

// timesPacked(x, packed, bias, activation, residual, y, M, N, K, precision): timesWeight with the [K, N] that was packed
void times_packed(Call& call) {
  const int64_t M = call.size(6, "M"), N = call.size(7, "N"), K = call.size(8, "K");
  const Strided x{call.floats(0, "x", {M, K}), K, 1};
  const MatmulKernels& matmul = matmul_kernels(call.precision(9));
  const float* packed = packed_argument(call, 1, N, K, matmul);
  const Epilogue epilogue = epilogue_argument(call, 2, M, N);
  matmul.gemm({M, N, K, x, {nullptr, 0, 0}, epilogue, call.floats(5, "y", {M, N}), N, false, packed});
}

// timesWeight(x, weight, transposed, bias, activation, residual, y, M, N, K, precision):
// activation(x [M, K] · weight [K, N] + bias) + residual; a transposed weight is [N, K]. It is a Float32Array or the handle of a stored weight.
void times_weight(Call& call) {
  const int64_t M = call.size(7, "M"), N = call.size(8, "N"), K = call.size(9, "K");
  const bool transposed = call.boolean(2, "transposed");
  const float* x = call.floats(0, "x", {M, K});
  float* y = call.floats(6, "y", {M, N});
  const Epilogue epilogue = epilogue_argument(call, 3, M, N);
  const Precision precision = call.precision(10);
  if (const StoredWeight* stored = stored_or_null(call, 1)) {
    const WeightView& w = matmul_operand(*stored, precision);
    check_stored(call, w, transposed ? N : K, transposed ? K : N);
    return times_stored(x, M, w, transposed, epilogue, y, precision);
  }
  matmul_kernels(precision).gemm({M, N, K, {x, K, 1}, view(call.floats(1, "weight", {K, N}), K, N, transposed), epilogue, y, N, false});
}

}  // namespace

Activation activation_argument(const Call& call, size_t i) {
  const std::string name = call.text(i, "activation");
  if (name != "none" && name != "relu" && name != "gelu") call.fail("activation: expected none, relu or gelu, found '" + name + "'");
  return name == "relu" ? Activation::relu : name == "gelu" ? Activation::gelu : Activation::none;
}

void check_stored(const Call& call, const WeightView& w, int64_t rows, int64_t columns) {
  if (w.rows != rows || w.columns != columns)
    call.fail("the stored weight is [" + std::to_string(w.rows) + ", " + std::to_string(w.columns) + "], which does not match N and K");
}

const float* packed_of(const Call& call, const std::vector<napi_value>& list, const char* what, int64_t at, int64_t N, int64_t K,
                       Precision precision) {
  return aligned(call.floats_of(list, what, at, packed_count(N, K, matmul_kernels(precision)).value));
}

void define_matmul(napi_env env, napi_value exports) {
  define<gemm>(env, exports, "gemm");
  define<gemm_add>(env, exports, "gemmAdd");
  define<packed_length>(env, exports, "packedLength");
  define<pack>(env, exports, "pack");
  define<times_packed>(env, exports, "timesPacked");
  define<times_weight>(env, exports, "timesWeight");
}

}  // namespace blip2
