// The table of kernels of one instruction-set level.
#include "kernels.h"

namespace blip2 {
namespace ISA {

extern const MatmulKernels float32_matmul;
extern const Int8Matmul int8_matmul;
extern const AttentionKernels float32_attention;
#define KERNEL(result, name, arguments) result name arguments;
#include "kernel_list.h"

namespace {

// constexpr: no code of a level may run before dispatch.cc has checked that the processor supports it.
constexpr Kernels table() {
  Kernels kernels{};
  kernels.level = LEVEL_NAME;
  kernels.float32_matmul = &float32_matmul;
  kernels.int8_matmul = &int8_matmul;
  kernels.float32_attention = &float32_attention;
#define KERNEL(result, name, arguments) kernels.name = name;
#include "kernel_list.h"
  return kernels;
}

}  // namespace

extern const Kernels kernels;
constexpr Kernels kernels = table();

}  // namespace ISA
}  // namespace blip2
