#include "stored.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <tuple>

#include "dispatch.h"

namespace blip2 {
namespace {

std::atomic<int64_t> mapped{0}, copied{0};

[[noreturn]] void fail(const std::string& path, const std::string& why) { throw std::runtime_error(path + ": " + why); }

}  // namespace

const StoredMatrix& factor(const Stored& stored, Precision precision) {
  return precision == Precision::bfloat16 ? stored.rounded() : stored.values();
}

int64_t mapped_bytes() { return mapped; }
int64_t copied_bytes() { return copied; }

// Pages straight from the system, in large ones where it has them; given back as soon as they are not needed.
class OwnMemory {
 public:
  explicit OwnMemory(int64_t bytes) : bytes_(bytes) {
    data_ = mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw std::runtime_error("no memory for " + std::to_string(bytes) + " bytes of weights");
#if defined(MADV_HUGEPAGE)
    madvise(data_, size_t(bytes), MADV_HUGEPAGE);
#endif
    copied += bytes;
  }
  ~OwnMemory() {
    munmap(data_, size_t(bytes_));
    copied -= bytes_;
  }
  OwnMemory(const OwnMemory&) = delete;
  void* data() const { return data_; }

 private:
  void* data_;
  int64_t bytes_;
};

// A whole file, read-only. It is mapped once however many matrices use it, and unmapped after the last.
class Mapping {
 public:
  static std::shared_ptr<const Mapping> of(const std::string& path);
  ~Mapping() {
    munmap(data_, size_t(bytes_));
    mapped -= bytes_;
  }
  Mapping(const Mapping&) = delete;

  const char* at(int64_t offset) const { return static_cast<const char*>(data_) + offset; }
  int64_t bytes() const { return bytes_; }

  // The pages that lie wholly inside are dropped from memory; they come back from the file when they are read again.
  void forget(int64_t begin, int64_t end) const {
    const int64_t page = sysconf(_SC_PAGESIZE);
    begin = (begin + page - 1) / page * page, end = end / page * page;
    if (begin < end) madvise(static_cast<char*>(data_) + begin, size_t(end - begin), MADV_DONTNEED);
  }

 private:
  Mapping(int file, int64_t bytes, const std::string& path) : bytes_(bytes) {
    data_ = mmap(nullptr, size_t(bytes), PROT_READ, MAP_PRIVATE, file, 0);
    if (data_ == MAP_FAILED) fail(path, std::string("cannot be mapped: ") + std::strerror(errno));
#if defined(MADV_HUGEPAGE)
    // Where the system can, what is read from the disk from now on comes in large pages: products walk across thousands of rows.
    madvise(data_, size_t(bytes), MADV_HUGEPAGE);
#endif
    mapped += bytes;
  }

  void* data_;
  int64_t bytes_;
};

std::shared_ptr<const Mapping> Mapping::of(const std::string& path) {
  struct Descriptor {
    int number;
    ~Descriptor() {
      if (number >= 0) close(number);
    }
  } file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat info;
  if (file.number < 0 || fstat(file.number, &info) != 0) fail(path, std::string("cannot be opened: ") + std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail(path, "expected a regular file");
  if (info.st_size == 0) fail(path, "expected weights, the file is empty");

  // Another file of this name, or this one rewritten, is another mapping.
#if defined(__APPLE__)
  const timespec changed = info.st_mtimespec;
#else
  const timespec changed = info.st_mtim;
#endif
  using Identity = std::tuple<uint64_t, uint64_t, int64_t, int64_t, int64_t>;
  const Identity identity{info.st_dev, info.st_ino, info.st_size, changed.tv_sec, changed.tv_nsec};
  static std::mutex mutex;
  static std::map<Identity, std::weak_ptr<const Mapping>> known;
  const std::lock_guard<std::mutex> lock(mutex);
  for (auto it = known.begin(); it != known.end();) it = it->second.expired() ? known.erase(it) : std::next(it);
  if (auto mapping = known[identity].lock()) return mapping;
  std::shared_ptr<const Mapping> mapping(new Mapping(file.number, info.st_size, path));
  known[identity] = mapping;
  return mapping;
}

Stored::Stored(const std::string& path, int64_t begin, StoredType type, int64_t rows, int64_t columns, bool rounded)
    : file_(Mapping::of(path)) {
  const int64_t item = stored_bytes(type), limit = file_->bytes();
  // Divisions, because products of given numbers may overflow.
  if (rows < 1 || columns < 1 || begin > limit || rows > (limit - begin) / item / columns)
    fail(path, "expected " + std::to_string(rows) + " x " + std::to_string(columns) + " elements of " + std::to_string(item) +
                   " bytes from byte " + std::to_string(begin) + " on, the file has " + std::to_string(limit) +
                   " bytes (truncated?)");
  const int64_t bytes = rows * columns * item;
  const void* data = file_->at(begin);
  if (begin % item != 0) {
    // Nothing in the format forbids it, but processors and compilers expect numbers at multiples of their size.
    aligned_ = std::make_unique<OwnMemory>(bytes);
    data = std::memcpy(aligned_->data(), data, size_t(bytes));
    file_->forget(begin, begin + bytes);
  }
  values_ = rounded_ = {data, type, rows, columns};
  if (rounded && type != StoredType::bfloat16) round();
}

Stored::~Stored() = default;

// The source's pages are dropped piece by piece, so that the two forms never lie in memory together.
void Stored::round() {
  constexpr int64_t kPiece = 16 << 20;
  const int64_t n = values_.rows * values_.columns, item = stored_bytes(values_.type);
  copy_ = std::make_unique<OwnMemory>(n * 2);
  uint16_t* to = static_cast<uint16_t*>(copy_->data());
  for (int64_t from = 0; from < n; from += kPiece) {
    const int64_t count = n - from < kPiece ? n - from : kPiece;
    kernels().round_to_bfloat16(values_, from, to + from, count);
    if (aligned_) continue;
    const int64_t begin = static_cast<const char*>(values_.data) - file_->at(0) + from * item;
    file_->forget(begin, begin + count * item);
  }
  rounded_ = {to, StoredType::bfloat16, values_.rows, values_.columns};
}

}  // namespace blip2
