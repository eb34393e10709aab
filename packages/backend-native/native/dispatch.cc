#include "dispatch.h"

#include <cstring>
#if defined(BLIP2_X86_LEVELS)
#include <cpuid.h>
#endif

namespace blip2 {

#define DECLARE_LEVEL(level) \
  namespace level {          \
  extern const Kernels kernels; \
  }
DECLARE_LEVEL(portable)
#if defined(BLIP2_X86_LEVELS)
DECLARE_LEVEL(avx2)
DECLARE_LEVEL(avx512)
#endif
#if defined(BLIP2_AVX512BF16)
namespace avx512bf16 {
extern const Products bfloat16_products;
}
#endif

namespace {

#if defined(BLIP2_X86_LEVELS)
// Not every compiler's __builtin_cpu_supports knows this one; its registers are those of AVX, which has been asked for.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

// A level that only multiplies differently is a copy of the one below with other products: its float32 results are those
// of the lower level. AMX belongs at the end of this list, in the same way.
struct Levels {
  const Kernels* list[5];
  Kernels with_bf16;
  int count = 0;

  Levels() {
    list[count++] = &portable::kernels;
#if defined(BLIP2_X86_LEVELS)
    // These builtins ask CPUID and, for the state that the operating system must save, XGETBV.
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) list[count++] = &avx2::kernels;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      list[count++] = &avx512::kernels;
#if defined(BLIP2_AVX512BF16)
    if (list[count - 1] == &avx512::kernels && __builtin_cpu_supports("avx512bf16")) {
      with_bf16 = avx512::kernels;
      with_bf16.name = "avx512bf16";
      with_bf16.bfloat16 = &avx512bf16::bfloat16_products;
      list[count++] = &with_bf16;
    }
#endif
#endif
  }
};

const Levels& levels() {
  static const Levels instance;
  return instance;
}

const Kernels* current = nullptr;
bool bfloat16 = false;

}  // namespace

const Kernels& kernels() {
  if (!current) current = levels().list[levels().count - 1];
  return *current;
}

bool use_level(const char* name) {
  for (int i = 0; i < levels().count; i++)
    if (std::strcmp(levels().list[i]->name, name) == 0) {
      bfloat16 = bfloat16 && levels().list[i]->bfloat16;
      current = levels().list[i];
      return true;
    }
  return false;
}

const Products& products() { return bfloat16 ? *kernels().bfloat16 : *kernels().float32; }

bool use_bfloat16(bool wanted) {
  if (wanted && !kernels().bfloat16) return false;
  bfloat16 = wanted;
  return true;
}

int level_count() { return levels().count; }
const char* level_name(int index) { return levels().list[index]->name; }

}  // namespace blip2
