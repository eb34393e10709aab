// All MPI calls of a process, made by one thread of its own, so that the event loop never waits (typed in src/addon.ts). A call returns
// a promise; calls are done one after the other, in the same order on every rank.
#include <mpi.h>
#include <node_api.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

/** Floats of one rank's segment that are exchanged at once. */
constexpr int64_t kSegment = 1 << 18;

void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw std::runtime_error(std::string(call) + ": " + std::string(text, size_t(length)));
}

struct Floats {
  float* data;
  int64_t size;
};

/** The MPI side; used by the MPI thread only. */
class Ranks {
 public:
  void start() {
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    if (provided < MPI_THREAD_FUNNELED) throw std::runtime_error("this MPI cannot be used beside other threads");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
    check(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    check(MPI_Get_library_version(text, &length), "MPI_Get_library_version");
    library = std::string(text, size_t(length));
  }

  /** Waits for all ranks. It sleeps between looks, since one rank may evaluate or write for minutes. */
  void barrier() {
    MPI_Request request;
    check(MPI_Ibarrier(MPI_COMM_WORLD, &request), "MPI_Ibarrier");
    const auto begin = Clock::now();
    for (int done = 0;;) {
      if (ending != 0) end();
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done) return;
      const auto waited = Clock::now() - begin;
      if (waited < std::chrono::microseconds(200)) std::this_thread::yield();
      else std::this_thread::sleep_for(std::min<Clock::duration>(waited / 8, std::chrono::milliseconds(5)));
    }
  }

  bool any(bool flag) {
    barrier();
    int own = flag, all = 0;
    check(MPI_Allreduce(&own, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD), "MPI_Allreduce");
    return all != 0;
  }

  /**
   * Sums all tensors in place. Each rank sums one segment of a block, in double and in order of rank, and sends the result to all: the
   * same bits on every rank, whatever the MPI. A rank sends 2·(N − 1)/N of the floats.
   */
  void sum(const std::vector<Floats>& tensors) {
    barrier();
    int64_t left = 0;
    for (const auto& t : tensors) left += t.size;
    Cursor in{tensors}, out{tensors};
    while (left > 0) {
      const int64_t count = std::min(left, kSegment * size);
      const int64_t segment = (count + size - 1) / size;
      block.assign(size_t(segment * size), 0.0f);
      received.resize(size_t(segment * size));
      own.resize(size_t(segment));
      in.copy(block.data(), count, true);
      const int n = int(segment);
      check(MPI_Alltoall(block.data(), n, MPI_FLOAT, received.data(), n, MPI_FLOAT, MPI_COMM_WORLD), "MPI_Alltoall");
      for (int64_t i = 0; i < segment; i++) {
        double total = 0;
        for (int r = 0; r < size; r++) total += received[size_t(r * segment + i)];
        own[size_t(i)] = float(total);
      }
      check(MPI_Allgather(own.data(), n, MPI_FLOAT, block.data(), n, MPI_FLOAT, MPI_COMM_WORLD), "MPI_Allgather");
      out.copy(block.data(), count, false);
      left -= count;
    }
  }

  void finish() {
    barrier();
    check(MPI_Finalize(), "MPI_Finalize");
  }

  /** Ends all ranks. */
  void end() {
    static int code;
    code = ending;
    std::atexit([] { _exit(code); }); // an MPI that calls exit() would destroy what other threads use
    MPI_Abort(MPI_COMM_WORLD, code);
  }

  int rank = 0;
  int size = 1;
  std::string library;
  /** the exit code with which the job shall end, at once */
  std::atomic<int> ending{0};

 private:
  /** A place in a list of tensors that are read or written one after the other. */
  struct Cursor {
    const std::vector<Floats>& tensors;
    size_t at = 0;
    int64_t offset = 0;

    void copy(float* buffer, int64_t count, bool read) {
      while (count > 0) {
        const int64_t n = std::min(count, tensors[at].size - offset);
        float* place = tensors[at].data + offset;
        if (n > 0) std::memcpy(read ? buffer : place, read ? place : buffer, size_t(n) * sizeof(float));
        buffer += n;
        count -= n;
        offset += n;
        if (offset == tensors[at].size) at++, offset = 0;
      }
    }
  };

  std::vector<float> block, received, own;
};

/** One call from JavaScript, and its promise. */
struct Job {
  std::function<void(Ranks&)> work;
  std::function<napi_value(napi_env, const Ranks&)> result;
  std::vector<napi_ref> kept; // typed arrays in use
  napi_deferred deferred = nullptr;
  std::string error;
};

/** The thread, and its queue of jobs. It lives as long as the process. */
class Thread {
 public:
  void push(napi_env env, std::unique_ptr<Job> job) {
    if (pending++ == 0) napi_ref_threadsafe_function(env, settled);
    {
      std::lock_guard<std::mutex> hold(mutex);
      jobs.push_back(std::move(job));
    }
    ready.notify_one();
  }

  /** Ends the job, also from the middle of a barrier. Waits, since this process ends with it. */
  void abort(int code) {
    auto last = std::make_unique<Job>();
    last->work = [](Ranks& ranks) { ranks.end(); };
    {
      std::lock_guard<std::mutex> hold(mutex);
      ranks.ending = code;
      jobs.push_front(std::move(last));
    }
    ready.notify_one();
    std::this_thread::sleep_for(std::chrono::seconds(2));
  }

  bool start(napi_env env) {
    napi_value name;
    napi_create_string_utf8(env, "mpi", NAPI_AUTO_LENGTH, &name);
    const auto settle = [](napi_env env, napi_value, void* context, void* data) {
      static_cast<Thread*>(context)->settle(env, static_cast<Job*>(data));
    };
    if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, settle, &settled) !=
        napi_ok)
      return false;
    napi_unref_threadsafe_function(env, settled);
    std::thread([this] { run(); }).detach();
    return true;
  }

 private:
  void run() {
    for (;;) {
      std::unique_lock<std::mutex> hold(mutex);
      ready.wait(hold, [this] { return !jobs.empty(); });
      auto job = std::move(jobs.front());
      jobs.pop_front();
      hold.unlock();
      try {
        job->work(ranks);
      } catch (const std::exception& error) {
        job->error = error.what();
      }
      napi_call_threadsafe_function(settled, job.release(), napi_tsfn_blocking);
    }
  }

  /** On the event loop. */
  void settle(napi_env env, Job* done) {
    std::unique_ptr<Job> job(done);
    if (env == nullptr) return; // the process ends
    for (napi_ref ref : job->kept) napi_delete_reference(env, ref);
    napi_value value;
    if (job->error.empty()) {
      value = job->result(env, ranks);
      napi_resolve_deferred(env, job->deferred, value);
    } else {
      napi_value text;
      napi_create_string_utf8(env, job->error.c_str(), job->error.size(), &text);
      napi_create_error(env, nullptr, text, &value);
      napi_reject_deferred(env, job->deferred, value);
    }
    if (--pending == 0) napi_unref_threadsafe_function(env, settled);
  }

  Ranks ranks;
  std::mutex mutex;
  std::condition_variable ready;
  std::deque<std::unique_ptr<Job>> jobs;
  napi_threadsafe_function settled = nullptr;
  int pending = 0; // read and written on the event loop
};

Thread& thread() {
  static Thread* one = new Thread; // never destroyed: its thread may still wait for other ranks when the process ends
  return *one;
}

napi_value promise(napi_env env, std::unique_ptr<Job> job) {
  napi_value value;
  napi_create_promise(env, &job->deferred, &value);
  thread().push(env, std::move(job));
  return value;
}

napi_value nothing(napi_env env, const Ranks&) {
  napi_value value;
  napi_get_undefined(env, &value);
  return value;
}

napi_value fail(napi_env env, const char* message) {
  napi_throw_type_error(env, nullptr, message);
  return nullptr;
}

std::unique_ptr<Job> job(std::function<void(Ranks&)> work) {
  auto made = std::make_unique<Job>();
  made->work = std::move(work);
  made->result = nothing;
  return made;
}

napi_value argument(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value value;
  napi_get_cb_info(env, info, &count, &value, nullptr, nullptr); // undefined if there is none
  return value;
}

// start(): Promise<{ rank, size, library }>
napi_value start(napi_env env, napi_callback_info) {
  static bool started = false;
  if (started) return fail(env, "start: MPI can be started once in a process");
  started = thread().start(env);
  if (!started) return fail(env, "start: no thread could be started");
  auto made = job([](Ranks& ranks) { ranks.start(); });
  made->result = [](napi_env env, const Ranks& ranks) {
    napi_value object, value;
    napi_create_object(env, &object);
    napi_create_int32(env, ranks.rank, &value);
    napi_set_named_property(env, object, "rank", value);
    napi_create_int32(env, ranks.size, &value);
    napi_set_named_property(env, object, "size", value);
    napi_create_string_utf8(env, ranks.library.c_str(), ranks.library.size(), &value);
    napi_set_named_property(env, object, "library", value);
    return object;
  };
  return promise(env, std::move(made));
}

// sum(tensors: Float32Array[]): Promise<void>
napi_value sum(napi_env env, napi_callback_info info) {
  const napi_value list = argument(env, info);
  bool is_list = false;
  uint32_t count = 0;
  napi_is_array(env, list, &is_list);
  if (!is_list || napi_get_array_length(env, list, &count) != napi_ok)
    return fail(env, "sum: expected a list of Float32Arrays");
  std::vector<Floats> tensors(count);
  std::vector<napi_value> values(count);
  for (uint32_t i = 0; i < count; i++) {
    napi_typedarray_type type = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
    bool is_typed = false;
    napi_get_element(env, list, i, &values[i]);
    napi_is_typedarray(env, values[i], &is_typed);
    if (is_typed) napi_get_typedarray_info(env, values[i], &type, &length, &data, nullptr, nullptr);
    if (type != napi_float32_array) return fail(env, "sum: expected a list of Float32Arrays");
    tensors[i] = {static_cast<float*>(data), int64_t(length)};
  }
  auto made = job([tensors](Ranks& ranks) { ranks.sum(tensors); });
  made->kept.resize(count);
  for (uint32_t i = 0; i < count; i++) napi_create_reference(env, values[i], 1, &made->kept[i]);
  return promise(env, std::move(made));
}

// any(flag: boolean): Promise<boolean>
napi_value any(napi_env env, napi_callback_info info) {
  bool flag = false;
  if (napi_get_value_bool(env, argument(env, info), &flag) != napi_ok) return fail(env, "any: expected a boolean");
  auto all = std::make_shared<bool>(false);
  auto made = job([flag, all](Ranks& ranks) { *all = ranks.any(flag); });
  made->result = [all](napi_env env, const Ranks&) {
    napi_value value;
    napi_get_boolean(env, *all, &value);
    return value;
  };
  return promise(env, std::move(made));
}

// barrier(): Promise<void>
napi_value barrier(napi_env env, napi_callback_info) {
  return promise(env, job([](Ranks& ranks) { ranks.barrier(); }));
}

// finish(): Promise<void>
napi_value finish(napi_env env, napi_callback_info) {
  return promise(env, job([](Ranks& ranks) { ranks.finish(); }));
}

// abort(code: number): void
napi_value abort(napi_env env, napi_callback_info info) {
  int32_t code = 0;
  if (napi_get_value_int32(env, argument(env, info), &code) != napi_ok || code == 0)
    return fail(env, "abort: expected an exit code other than 0");
  thread().abort(code);
  return nothing(env, {});
}

napi_value init(napi_env env, napi_value exports) {
  const std::pair<const char*, napi_callback> functions[] = {
      {"start", start}, {"sum", sum}, {"any", any}, {"barrier", barrier}, {"finish", finish}, {"abort", abort}};
  for (const auto& [name, callback] : functions) {
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function);
    napi_set_named_property(env, exports, name, function);
  }
  return exports;
}

}  // namespace

NAPI_MODULE(NODE_GYP_MODULE_NAME, init)
