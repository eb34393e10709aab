// Linked into the addon by `build.mjs --faults` only: every allocation of the addon and of its C++ library, and every thread that it
// starts, passes through here (the linker's --wrap), and one of them can be made to fail.
#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "../native/binding.h"
#include "../native/thread_pool.h"

namespace blip2 {
std::atomic<uint64_t> scratch_epoch{0};   // of thread_pool.cc: scratch memory of an older one is allocated again
}

namespace {

std::atomic<int64_t> made{0}, failing{0}, failed{0};

bool fails() {
  if (made.fetch_add(1) + 1 != failing.load()) return false;
  failed++;
  errno = ENOMEM;
  return true;
}

}  // namespace

extern "C" {
void* __real_malloc(size_t);
void* __real_calloc(size_t, size_t);
void* __real_realloc(void*, size_t);
void* __real_aligned_alloc(size_t, size_t);
void* __real_mmap(void*, size_t, int, int, int, off_t);
int __real_pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);

void* __wrap_malloc(size_t n) { return fails() ? nullptr : __real_malloc(n); }
void* __wrap_calloc(size_t n, size_t size) { return fails() ? nullptr : __real_calloc(n, size); }
void* __wrap_realloc(void* p, size_t n) { return fails() ? nullptr : __real_realloc(p, n); }
void* __wrap_aligned_alloc(size_t unit, size_t n) { return fails() ? nullptr : __real_aligned_alloc(unit, n); }
void* __wrap_mmap(void* at, size_t n, int protection, int flags, int file, off_t offset) {
  return fails() ? MAP_FAILED : __real_mmap(at, n, protection, flags, file, offset);
}
int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  return fails() ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}
}

namespace blip2 {
namespace {

// failAllocation(n): the n-th allocation from now on fails, once; 0 for none. All scratch memory will be allocated again.
void fail_allocation(Call& call) {
  const int64_t n = call.size(0, "n");
  scratch_epoch++;
  failed = 0, made = 0, failing = n;
}

// allocations(), failedAllocations(): since the last failAllocation
void allocations(Call& call) { call.give(double(made)); }
void failed_allocations(Call& call) { call.give(double(failed)); }

}  // namespace

void define_faults(napi_env env, napi_value exports) {
  define<fail_allocation>(env, exports, "failAllocation");
  define<allocations>(env, exports, "allocations");
  define<failed_allocations>(env, exports, "failedAllocations");
}

}  // namespace blip2
