// What happens when a memory-mapped file becomes shorter: reading the pages that it lost raises SIGBUS, which would end the process. Here
// they become pages of zeros, and the range is marked as damaged, so that whoever used it can throw.
#pragma once
#include <atomic>
#include <cstdint>

namespace blip2 {

// One mapped range. Never freed, because a signal handler walks the list of them, but used again.
struct Watched {
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<bool> taken{true}, damaged{false};
  Watched* next = nullptr;
};

// Watches whole pages from `begin` on that hold `bytes`. The first call installs the handler, which passes other signals on to the one before.
Watched* watch(const void* begin, int64_t bytes);
void unwatch(Watched* range);

}  // namespace blip2
