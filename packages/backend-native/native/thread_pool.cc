#include "thread_pool.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

#include "out_of_memory.h"

namespace blip2 {

#if defined(BLIP2_FAULTS)
extern std::atomic<uint64_t> scratch_epoch;   // of spec/faults.cc
#endif

namespace {

constexpr int kSpins = 1500;   // pauses before yielding: about 30 µs, the usual gap between two kernels
constexpr int kYields = 50;    // yields before sleeping, so that a busy third thread gets the core

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Pool {
 public:
  void run(int64_t tasks, void (*body)(void*, int64_t), void* context) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (tasks < 2 || limit_ < 2 || tasks > UINT32_MAX || !owner.owns_lock()) {
      for (int64_t task = 0; task < tasks; task++) body(context, task);
      return;
    }
    start_workers();
    body_ = body;
    context_ = context;
    total_ = tasks;
    finished_.store(0);
    state_.store((++epoch_ << 32) | uint64_t(tasks));
    if (sleepers_.load() > 0) {
      std::lock_guard<std::mutex> lock(sleep_);
      wake_.notify_all();
    }
    while (take()) {
    }
    for (int i = 0; finished_.load() < tasks; i++) {
      if (i < kSpins) {
        pause();
      } else if (i < kSpins + kYields) {
        std::this_thread::yield();
      } else {   // leaving the core idle lets the scheduler move a displaced worker onto it
        std::unique_lock<std::mutex> lock(sleep_);
        waiting_.store(true);
        done_.wait(lock, [&] { return finished_.load() == tasks; });
        waiting_.store(false);
      }
    }
  }

  void set_limit(int count) {
    std::lock_guard<std::mutex> owner(owner_);
    limit_ = count < 1 ? 1 : count;
  }
  int limit() const { return limit_; }

 private:
  // If the system gives no more threads or memory, those that run do the work.
  void start_workers() {
    try {
      for (; started_ < limit_ - 1; started_++) std::thread(&Pool::work, this, started_).detach();
    } catch (const std::exception&) {
    }
  }

  // state_ holds the number of the job (high half) and its number of free tasks (low half). A thread takes a task by decrementing
  // state_; the fields of the job do not change until that task is counted as finished.
  bool take() {
    uint64_t state = state_.load();
    while (uint32_t left = uint32_t(state)) {
      if (!state_.compare_exchange_weak(state, state - 1)) continue;
      const int64_t total = total_;
      body_(context_, total - left);
      if (finished_.fetch_add(1) + 1 == total && waiting_.load()) {
        std::lock_guard<std::mutex> lock(sleep_);
        done_.notify_all();
      }
      return true;
    }
    return false;
  }

  bool has_work(int index) const { return index < limit_ - 1 && uint32_t(state_.load()) != 0; }

  void work(int index) {
    for (;;) {
      for (int i = 0; !has_work(index); i++) {
        if (i < kSpins) {
          pause();
        } else if (i < kSpins + kYields) {
          std::this_thread::yield();
        } else {
          std::unique_lock<std::mutex> lock(sleep_);
          sleepers_.fetch_add(1);
          wake_.wait(lock, [&] { return has_work(index); });
          sleepers_.fetch_sub(1);
        }
      }
      while (index < limit_ - 1 && take()) {
      }
    }
  }

  std::mutex owner_, sleep_;
  std::condition_variable wake_, done_;
  std::atomic<uint64_t> state_{0};
  std::atomic<int64_t> finished_{0};
  std::atomic<int> sleepers_{0}, limit_{1};
  std::atomic<bool> waiting_{false};
  uint64_t epoch_ = 0;
  int started_ = 0;
  void (*body_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t total_ = 0;
};

// Never destroyed: detached workers may outlive static destructors.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

thread_local bool inside_task = false;

struct Block {
  float* data = nullptr;
  int64_t size = 0;
#if defined(BLIP2_FAULTS)
  uint64_t epoch = 0;
#endif
  ~Block() { std::free(data); }
};
thread_local Block blocks[kScratchSlots];

// In the order of ScratchSlot.
constexpr const char* kPurposes[kScratchSlots] = {"packed operands", "packed operands", "attention scores", "random numbers",
                                                  "a key mask", "partial sums", "scores of the loss", "rows of the loss",
                                                  "a gradient of the loss"};

struct Guarded {
  void (*body)(void*, int64_t);
  void* context;
  std::atomic<bool> failed{false};
  std::exception_ptr first{};   // written by the thread that set `failed`
};

// An exception must not leave a task: it would unwind the caller's frame while other threads use it, and end the process on a worker.
void guarded(void* raw, int64_t task) noexcept {
  Guarded& job = *static_cast<Guarded*>(raw);
  if (job.failed.load(std::memory_order_relaxed)) return;
  inside_task = true;
  try {
    job.body(job.context, task);
  } catch (...) {
    if (!job.failed.exchange(true)) job.first = std::current_exception();
  }
  inside_task = false;
}

}  // namespace

void run_tasks(int64_t tasks, void (*body)(void*, int64_t), void* context) {
  if (inside_task) {
    for (int64_t task = 0; task < tasks; task++) body(context, task);
    return;
  }
  Guarded job{body, context};
  pool().run(tasks, guarded, &job);
  if (job.first) std::rethrow_exception(job.first);
}

void set_threads(int count) { pool().set_limit(count); }
int threads() { return pool().limit(); }

float* scratch(ScratchSlot slot, int64_t floats) {
  Block& block = blocks[slot];
#if defined(BLIP2_FAULTS)
  if (block.epoch != scratch_epoch) block.size = 0;
  block.epoch = scratch_epoch;
#endif
  if (floats > INT64_MAX / 16) throw OutOfMemory(INT64_MAX, kPurposes[slot]);
  if (block.size < floats) {
    // Large blocks are whole large pages of the system: panels are read from end to end, and again.
    constexpr int64_t kLargePage = 2 << 20;
    const int64_t wish = (floats + floats / 4) * int64_t(sizeof(float));
    const int64_t unit = wish < kLargePage ? 4096 : kLargePage, bytes = (wish + unit - 1) / unit * unit;
    std::free(block.data);
    block.size = 0;
    block.data = static_cast<float*>(std::aligned_alloc(unit == kLargePage ? kLargePage : 64, size_t(bytes)));
    if (!block.data) throw OutOfMemory(bytes, kPurposes[slot]);
#if defined(MADV_HUGEPAGE)
    if (unit == kLargePage) madvise(block.data, size_t(bytes), MADV_HUGEPAGE);
#endif
    block.size = bytes / int64_t(sizeof(float));
  }
  return block.data;
}

}  // namespace blip2
