// Preloaded into a process (LD_PRELOAD), counts its system calls that change files under BLIP2_FAULT_ROOT. At call number `at` it
// kills the process, or lets the call fail with an error number. A write that meets the fault is done by half.
//   BLIP2_FAULT      "AT ERROR", where error 0 is a kill; with a third word "on", all later calls fail as well
//   BLIP2_FAULT_LOG  a file: each counted call or, with BLIP2_FAULT, the one that met the fault, as "CALL PATH"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <string>

namespace {

template <class F>
F* next(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

struct Plan {
  std::string root, log;
  int at = -1, error = 0;
  bool on = false;
  Plan() {
    const char* value = getenv("BLIP2_FAULT_ROOT");
    root = value ? value : "";
    value = getenv("BLIP2_FAULT_LOG");
    log = value ? value : "";
    char word[3] = "";
    if ((value = getenv("BLIP2_FAULT"))) sscanf(value, "%d %d %2s", &at, &error, word);
    on = !strcmp(word, "on");
  }
};

const Plan& plan() {
  static const Plan made;
  return made;
}

std::atomic<int> calls{0};

void report(const char* call, const std::string& path) {
  static auto raw = next<long(long, ...)>("syscall");
  static auto put = next<ssize_t(int, const void*, size_t)>("write");
  const int fd = raw(SYS_openat, AT_FDCWD, plan().log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const std::string line = std::string(call) + " " + path + "\n";
  if (put(fd, line.data(), line.size()) < 0) abort();
  raw(SYS_close, fd);
}

std::string absolute(const char* path) {
  char cwd[PATH_MAX];
  return path[0] == '/' || !getcwd(cwd, sizeof cwd) ? path : std::string(cwd) + "/" + path;
}

std::string path_of(int fd) {
  char link[40], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path);
  return length < 0 ? "" : std::string(path, length);
}

// A call that frees room or needs none works on a full disk.
bool needs_room(const char* call) { return !strcmp(call, "write") || !strcmp(call, "open") || !strcmp(call, "mkdir") || !strcmp(call, "copy"); }

// Does the call, or half of it and then the fault.
template <class Half, class Whole>
auto meet(const char* call, const std::string& path, Half half, Whole whole) -> decltype(whole()) {
  const Plan& p = plan();
  if (p.root.empty() || path.compare(0, p.root.size(), p.root)) return whole();
  const int now = calls++;
  if (p.at < 0) report(call, path);
  if (p.at < 0 || now < p.at || (now > p.at && !p.on)) return whole();
  if (p.on && p.error == ENOSPC && !needs_room(call)) return whole();
  if (now == p.at) report(call, path);
  half();
  if (p.error == 0) kill(getpid(), SIGKILL);
  errno = p.error;
  return -1;
}

const auto nothing = [] {};

}  // namespace

extern "C" {

int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const int mode = va_arg(list, int);
  va_end(list);
  static auto go = next<int(const char*, int, ...)>("open64");
  const auto whole = [&] { return go(path, flags, mode); };
  if (!(flags & (O_CREAT | O_WRONLY | O_RDWR))) return whole();
  return meet("open", absolute(path), nothing, whole);
}

ssize_t write(int fd, const void* data, size_t size) {
  static auto go = next<ssize_t(int, const void*, size_t)>("write");
  return meet("write", path_of(fd), [&] { go(fd, data, size / 2); }, [&] { return go(fd, data, size); });
}

ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  static auto go = next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  return meet("write", path_of(fd), [&] { go(fd, data, size / 2, at); }, [&] { return go(fd, data, size, at); });
}

ssize_t writev(int fd, const iovec* parts, int count) {
  static auto go = next<ssize_t(int, const iovec*, int)>("writev");
  return meet("write", path_of(fd), [&] { go(fd, parts, count / 2); }, [&] { return go(fd, parts, count); });
}

ssize_t pwritev64(int fd, const iovec* parts, int count, off64_t at) {
  static auto go = next<ssize_t(int, const iovec*, int, off64_t)>("pwritev64");
  return meet("write", path_of(fd), [&] { go(fd, parts, count / 2, at); }, [&] { return go(fd, parts, count, at); });
}

#define BY_PATH(name, parameters, arguments, path)                                \
  int name parameters {                                                           \
    static auto go = next<int parameters>(#name);                                 \
    return meet(#name, absolute(path), nothing, [&] { return go arguments; });    \
  }
BY_PATH(rename, (const char* from, const char* to), (from, to), to)
BY_PATH(link, (const char* from, const char* to), (from, to), to)
BY_PATH(symlink, (const char* from, const char* to), (from, to), to)
BY_PATH(unlink, (const char* path), (path), path)
BY_PATH(remove, (const char* path), (path), path)
BY_PATH(rmdir, (const char* path), (path), path)
BY_PATH(mkdir, (const char* path, mode_t mode), (path, mode), path)
BY_PATH(chmod, (const char* path, mode_t mode), (path, mode), path)

#define BY_FILE(name, parameters, arguments)                                      \
  int name parameters {                                                           \
    static auto go = next<int parameters>(#name);                                 \
    return meet(#name, path_of(fd), nothing, [&] { return go arguments; });       \
  }
BY_FILE(fsync, (int fd), (fd))
BY_FILE(fdatasync, (int fd), (fd))
BY_FILE(ftruncate64, (int fd, off64_t size), (fd, size))
BY_FILE(fchmod, (int fd, mode_t mode), (fd, mode))

ssize_t sendfile64(int to, int from, off64_t* at, size_t size) {
  static auto go = next<ssize_t(int, int, off64_t*, size_t)>("sendfile64");
  return meet("copy", path_of(to), [&] { go(to, from, at, size / 2); }, [&] { return go(to, from, at, size); });
}

// libuv calls copy_file_range in this way.
long syscall(long number, ...) {
  long a[6];
  va_list list;
  va_start(list, number);
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  static auto go = next<long(long, ...)>("syscall");
  const auto whole = [&] { return go(number, a[0], a[1], a[2], a[3], a[4], a[5]); };
  if (number != SYS_copy_file_range) return whole();
  return meet("copy", path_of(a[2]), [&] { go(number, a[0], a[1], a[2], a[3], a[4] / 2, a[5]); }, whole);
}

}  // extern "C"
