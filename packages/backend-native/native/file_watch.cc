#include "file_watch.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

namespace blip2 {
namespace {

std::atomic<Watched*> first{nullptr};
struct sigaction before;
uintptr_t page_size = 4096;

// Only system calls and lock-free atomics: this may interrupt any thread anywhere.
bool repair(uintptr_t at) {
  for (Watched* range = first.load(); range; range = range->next) {
    const uintptr_t begin = range->begin.load(), end = range->end.load();
    if (at < begin || at >= end) continue;
    const int error = errno;
    const uintptr_t page = at / page_size * page_size;   // to the end: a file that became shorter has lost that too
    void* zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    errno = error;
    if (zeros == MAP_FAILED) return false;
    range->damaged.store(true);
    return true;
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  if (repair(uintptr_t(info->si_addr))) return;
  if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal, info, context);
  if (before.sa_handler == SIG_IGN) return;
  if (before.sa_handler != SIG_DFL) return before.sa_handler(signal);
  sigaction(SIGBUS, &before, nullptr);
  raise(signal);   // delivered when this handler returns
}

void install() {
  page_size = uintptr_t(sysconf(_SC_PAGESIZE));
  struct sigaction action{};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, nullptr, &before);
  sigaction(SIGBUS, &action, nullptr);
}

Watched* free_range() {
  for (Watched* range = first.load(); range; range = range->next)
    if (!range->taken.exchange(true)) return range;
  Watched* range = new Watched;
  range->next = first.load();
  while (!first.compare_exchange_weak(range->next, range)) {
  }
  return range;
}

}  // namespace

Watched* watch(const void* begin, int64_t bytes) {
  static std::once_flag once;
  std::call_once(once, install);
  Watched* range = free_range();
  range->damaged.store(false);
  range->begin.store(uintptr_t(begin));
  range->end.store((uintptr_t(begin) + uintptr_t(bytes) + page_size - 1) / page_size * page_size);
  return range;
}

void unwatch(Watched* range) {
  range->end.store(0);
  range->begin.store(0);
  range->taken.store(false);
}

}  // namespace blip2
