// Matmul with an int8 or int4 weight by instructions that sum four products of bytes: AVX512-VNNI, AVX-VNNI with vectors of 256 bits, and
// arm64's dot product. The only file that is compiled for these levels.
#include "gemm_int4.h"
#if defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace blip2 {
namespace ISA {
namespace {

#if defined(__ARM_FEATURE_DOTPROD)
// Both operands of sdot are signed, so q of the weight is used instead of q + 128, and sums begin at 0.
struct Dot {
  static constexpr int kRows = 4;
  using Words = vi;
  static vi words(vi w) { return w ^ int32_t(0x80808080); }
  static vi dot(vi sum, vi w, vi x) { return (vi)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x); }
  static void multiply_add(vi& s0, vi& s1, vi w0, vi w1, const int32_t* x) {
    const vi word = vi{} + *x;
    s0 = dot(s0, w0, word);
    s1 = dot(s1, w1, word);
  }
  static vi add_bytes(vi sum, vi) { return sum; }
};
using Engine = Dot;
#else
// Assembler, because g++ 12 spills the sums of the intrinsics to the stack. vpdpbusd multiplies unsigned bytes of the weight by signed ones
// of x.
struct Vnni {
  using Words = vi;
  static vi words(vi w) { return w; }
#if defined(__AVX512F__)
  static constexpr int kRows = 14;
  static __attribute__((always_inline)) void add(vi& sum, vi w, const int32_t* x) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*x));
  }
  static __attribute__((always_inline)) void multiply_add(vi& s0, vi& s1, vi w0, vi w1, const int32_t* x) {
    add(s0, w0, x);
    add(s1, w1, x);
  }
  static vi add_bytes(vi sum, vi w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(vi{} + 0x01010101), "v"(w));
    return sum;
  }
#else
  static constexpr int kRows = 6;
  static __attribute__((always_inline)) void add(vi& sum, vi w, vi x) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));
  }
  static __attribute__((always_inline)) void multiply_add(vi& s0, vi& s1, vi w0, vi w1, const int32_t* x) {
    const vi word = vi{} + *x;
    add(s0, w0, word);
    add(s1, w1, word);
  }
  static vi add_bytes(vi sum, vi w) {
    add(sum, vi{} + 0x01010101, w);
    return sum;
  }
#endif
};
using Engine = Vnni;
#endif

}  // namespace

extern const Int8Matmul int8_matmul;
const Int8Matmul int8_matmul = {times_int8<Engine>, times_int4<Engine>};

}  // namespace ISA
}  // namespace blip2
