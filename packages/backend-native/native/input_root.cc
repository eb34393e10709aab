// The triangular root of the products of a linear layer's inputs: H = xᵀ·x of x [M, K], plus a part of its mean diagonal on the diagonal,
// is R·Rᵀ with R [K, K] upper triangular. |e·xᵀ|² = |e·R|² for an error e of a row of the weight, so column i of e·R has what the columns
// 0 … i of the weight do together. That is the form of GPTQ (Frantar et al. 2023) which needs no inverse of H.
#include "simd.h"

namespace blip2 {
namespace ISA {

extern const MatmulKernels float32_matmul;

namespace {

constexpr int64_t kColumns = 512;   // of one matmul, so that little is computed below the diagonal

inline float dot(const float* a, const float* b, int64_t n) {
  vf s0{}, s1{};
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    s0 += load(a + i) * load(b + i);
    s1 += load(a + i + W) * load(b + i + W);
  }
  for (; i < n; i += W) s0 += load_part(a + i, smaller(W, n - i)) * load_part(b + i, smaller(W, n - i));
  return sum_of(s0 + s1);
}

// h += or = aᵀ·b of a, b [M, K], at and above the diagonal.
void add_products(const float* a, const float* b, int64_t M, int64_t K, bool accumulate, float* h) {
  for (int64_t j = 0; j < K; j += kColumns) {
    const int64_t n = smaller(kColumns, K - j);
    float32_matmul.gemm({j + n, n, M, {a, 1, K}, {b + j, K, 1}, {}, h + j, K, accumulate});
  }
}

// A multiple of the mean diagonal is added to it, so that the root exists. False if the mean is not finite or 0.
bool damp(float* h, int64_t K, float damping) {
  double sum = 0;
  for (int64_t k = 0; k < K; k++) sum += h[k * (K + 1)];
  const float more = float(sum / double(K) * damping);
  if (!(more > 0 && more < 3e38f)) return false;
  for (int64_t k = 0; k < K; k++) h[k * (K + 1)] += more;
  return true;
}

// The root of the square of side n at `at`, whose rows are K apart. False if H is not positive there.
bool small_root(float* at, int64_t n, int64_t K) {
  for (int64_t j = n - 1; j >= 0; j--) {
    float* row = at + j * K;
    const float rest = row[j] - dot(row + j + 1, row + j + 1, n - j - 1);
    if (!(rest > 0 && rest < 3e38f)) return false;
    row[j] = __builtin_sqrtf(rest);
    const float inverse = 1 / row[j];
    for (int64_t i = 0; i < j; i++) {
      float* above = at + i * K;
      above[j] = (above[j] - dot(above + j + 1, row + j + 1, n - j - 1)) * inverse;
    }
  }
  return true;
}

// Rows [0, b) of the columns of a block, given its root; `negated` [b, n] gets them times -1.
void rows_above(float* root, int64_t b, int64_t n, int64_t K, float* negated) {
  parallel_chunks(b, 16, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float* row = root + i * K + b;
      for (int64_t j = n - 1; j >= 0; j--) {
        const float* of = root + (b + j) * K + b;
        row[j] = (row[j] - dot(row + j + 1, of + j + 1, n - j - 1)) / of[j];
      }
      for (int64_t j = 0; j < n; j++) negated[i * n + j] = -row[j];
    }
  });
}

// Block by block from the last to the first, in place.
bool triangular_root(float* root, int64_t K, float* room) {
  for (int64_t b = (K - 1) / kRootBlock * kRootBlock; b >= 0; b -= kRootBlock) {
    const int64_t n = smaller(kRootBlock, K - b);
    if (!small_root(root + b * (K + 1), n, K)) return false;
    rows_above(root, b, n, K, room);
    for (int64_t j = 0; j < b; j += kColumns) {
      const int64_t columns = smaller(kColumns, b - j);
      float32_matmul.gemm({j + columns, columns, n, {room, n, 1}, {root + j * K + b, 1, K}, {}, root + j, K, true});
    }
  }
  return true;
}

}  // namespace

bool input_root(const InputRows& x, float damping, float* room, float* root) {
  const int64_t K = x.K;
  add_products(x.all, x.all, x.M, K, false, root);
  if (x.left_out > 0) {
    for (int64_t i = 0; i < x.left_out * K; i++) room[i] = -x.out[i];
    add_products(room, x.out, x.left_out, K, true, root);
  }
  return damp(root, K, damping) && triangular_root(root, K, room);
}

}  // namespace ISA
}  // namespace blip2
