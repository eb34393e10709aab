#include "dispatch.h"

#include <cstring>

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

namespace {

// The further levels (AVX512-BF16, AMX) belong at the end of this list.
struct Levels {
  const Kernels* list[4];
  int count = 0;

  Levels() {
    list[count++] = &portable::kernels;
#if defined(BLIP2_X86_LEVELS)
    // These builtins ask CPUID and, for the state that the operating system must save, XGETBV.
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[count++] = &avx2::kernels;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      list[count++] = &avx512::kernels;
#endif
  }
};

const Levels& levels() {
  static const Levels instance;
  return instance;
}

const Kernels* current = nullptr;

}  // namespace

const Kernels& kernels() {
  if (!current) current = levels().list[levels().count - 1];
  return *current;
}

bool use_level(const char* name) {
  for (int i = 0; i < levels().count; i++)
    if (std::strcmp(levels().list[i]->name, name) == 0) {
      current = levels().list[i];
      return true;
    }
  return false;
}

int level_count() { return levels().count; }
const char* level_name(int index) { return levels().list[index]->name; }

}  // namespace blip2
