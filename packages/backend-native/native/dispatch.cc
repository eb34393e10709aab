#include "dispatch.h"

#include <cstring>
#if defined(BLIP2_X86_LEVELS)
#include <cpuid.h>
#endif
#if defined(BLIP2_DOTPROD) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(BLIP2_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
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
#if defined(BLIP2_DOTPROD)
namespace dotprod {
extern const Int8Matmul int8_matmul;
}
#endif
#if defined(BLIP2_AVXVNNI)
namespace avxvnni {
extern const Int8Matmul int8_matmul;
}
#endif
#if defined(BLIP2_AVX512VNNI)
namespace avx512vnni {
extern const Int8Matmul int8_matmul;
}
#endif
#if defined(BLIP2_AVX512BF16)
namespace avx512bf16 {
extern const MatmulKernels bfloat16_matmul;
extern const AttentionKernels bfloat16_attention;
}
#endif
#if defined(BLIP2_AMX)
namespace amx {
extern const MatmulKernels bfloat16_matmul;
extern const Int8Matmul int8_matmul;
bool amx_agrees();
bool amx_int8_agrees();
}
namespace amx_emulated {
extern const MatmulKernels bfloat16_matmul;
extern const Int8Matmul int8_matmul;
bool amx_agrees();
bool amx_int8_agrees();
}
#endif

namespace {

#if defined(BLIP2_X86_LEVELS)
// Not every compiler's __builtin_cpu_supports knows F16C. It uses AVX's registers, which were checked before.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

#if defined(BLIP2_AMX)
// AMX's registers are so large that a process must request them from Linux (arch/x86/xstate in the kernel's documentation). The
// permission is for the whole process, but only threads started afterwards have it.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr unsigned kTile = 1u << 24, kBf16 = 1u << 22, kInt8 = 1u << 25;   // CPUID leaf 7, edx
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kTile) || !(d & kBf16) || !(d & kInt8)) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

#if defined(BLIP2_AVXVNNI)
// Not every compiler's __builtin_cpu_supports knows AVX-VNNI.
bool has_avxvnni() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4));
}
#endif

#if defined(BLIP2_DOTPROD)
// Every arm64 processor of Apple's computers has it.
bool has_dotprod() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & (1ul << 20);   // HWCAP_ASIMDDP
#else
  return true;
#endif
}
#endif

#if defined(BLIP2_AVXVNNI) || defined(BLIP2_AVX512VNNI) || defined(BLIP2_DOTPROD)
Kernels with_int8(const Kernels& below, const char* name, const Int8Matmul& int8) {
  Kernels level = below;
  level.level = name;
  level.int8_matmul = &int8;
  return level;
}
#endif

#if defined(BLIP2_AVX512BF16)
Kernels with_matmul(const Kernels& below, const char* name, const MatmulKernels& bfloat16) {
  Kernels level = below;
  level.level = name;
  level.bfloat16_matmul = &bfloat16;
  level.bfloat16_attention = &avx512bf16::bfloat16_attention;
  return level;
}
#endif

// A level that only adds matmuls in bfloat16 or int8 is a copy of the level below with these added, and has the same float32 results.
struct Levels {
  const Kernels* list[8];
  Kernels with_dotprod, with_avxvnni, with_vnni, with_bf16, with_amx, with_emulated_amx;
  const Kernels* hidden = nullptr;   // selected only by name, for tests
  int count = 0;

  Levels() {
    list[count++] = &portable::kernels;
#if defined(BLIP2_DOTPROD)
    if (has_dotprod()) {
      with_dotprod = with_int8(portable::kernels, "dotprod", dotprod::int8_matmul);
      list[count++] = &with_dotprod;
    }
#endif
#if defined(BLIP2_X86_LEVELS)
    // These builtins read CPUID and, for the register state that the operating system must save, XGETBV.
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) list[count++] = &avx2::kernels;
#if defined(BLIP2_AVXVNNI)
    if (list[count - 1] == &avx2::kernels && has_avxvnni()) {
      with_avxvnni = with_int8(avx2::kernels, "avxvnni", avxvnni::int8_matmul);
      list[count++] = &with_avxvnni;
    }
#endif
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      list[count++] = &avx512::kernels;
    const Kernels* wide = list[count - 1] == &avx512::kernels ? &avx512::kernels : nullptr;
#if defined(BLIP2_AVX512VNNI)
    if (wide && __builtin_cpu_supports("avx512vnni")) {
      with_vnni = with_int8(avx512::kernels, "avx512vnni", avx512vnni::int8_matmul);
      list[count++] = wide = &with_vnni;
    }
#endif
#if defined(BLIP2_AVX512BF16)
    if (wide && __builtin_cpu_supports("avx512bf16")) {
#if defined(BLIP2_AMX)
      const bool vnni = wide == &with_vnni;
#endif
      with_bf16 = with_matmul(*wide, "avx512bf16", avx512bf16::bfloat16_matmul);
      list[count++] = &with_bf16;
#if defined(BLIP2_AMX)
      with_emulated_amx = with_matmul(*wide, "amx_emulated", amx_emulated::bfloat16_matmul);
      with_emulated_amx.int8_matmul = &amx_emulated::int8_matmul;
      if (vnni && amx_emulated::amx_agrees() && amx_emulated::amx_int8_agrees()) hidden = &with_emulated_amx;
      with_amx = with_matmul(*wide, "amx", amx::bfloat16_matmul);
      if (vnni && may_use_tiles() && amx::amx_agrees()) {
        if (amx::amx_int8_agrees()) with_amx.int8_matmul = &amx::int8_matmul;
        list[count++] = &with_amx;
      }
#endif
    }
#endif
#endif
  }
};

const Levels& levels() {
  static const Levels instance;
  return instance;
}

// Of each thread of JavaScript, so that a worker's choice does not change the results of others. Tasks of the pool do not read it.
thread_local const Kernels* current = nullptr;

}  // namespace

const Kernels& kernels() {
  if (!current) current = levels().list[levels().count - 1];
  return *current;
}

bool use_level(const char* name) {
  const Kernels* found = nullptr;
  for (int i = 0; i < levels().count; i++)
    if (std::strcmp(levels().list[i]->level, name) == 0) found = levels().list[i];
  if (levels().hidden && std::strcmp(levels().hidden->level, name) == 0) found = levels().hidden;
  if (!found) return false;
  current = found;
  return true;
}

bool has_bfloat16() { return kernels().bfloat16_matmul != nullptr; }
bool rounds(Precision precision) {
  return precision == Precision::bfloat16 || (precision == Precision::int8 && has_bfloat16());
}
const MatmulKernels& matmul_kernels(Precision precision) {
  return rounds(precision) ? *kernels().bfloat16_matmul : *kernels().float32_matmul;
}
const AttentionKernels& attention_kernels(Precision precision) {
  return rounds(precision) ? *kernels().bfloat16_attention : *kernels().float32_attention;
}
void times_stored(const float* x, int64_t M, const WeightView& w, bool transposed, const Epilogue& epilogue, float* y, Precision precision) {
  const bool eight = precision == Precision::int8;
  const auto times = eight && w.encoding == Encoding::int8   ? kernels().int8_matmul->times
                     : eight && w.encoding == Encoding::int4 ? kernels().int8_matmul->times_int4
                                                             : matmul_kernels(precision).gemm_stored;
  times(x, M, w, transposed, epilogue, y);
}

int level_count() { return levels().count; }
const char* level_name(int index) { return levels().list[index]->level; }

}  // namespace blip2
