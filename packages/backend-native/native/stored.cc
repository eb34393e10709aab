#include "stored.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <tuple>

#include "dispatch.h"
#include "file_watch.h"
#include "out_of_memory.h"

namespace blip2 {
namespace {

std::atomic<int64_t> mapped{0}, copied{0};

[[noreturn]] void fail(const std::string& path, const std::string& why) { throw std::runtime_error(path + ": " + why); }

}  // namespace

const WeightView& matmul_operand(const StoredWeight& weight, Precision precision) {
  return rounds(precision) ? weight.rounded() : weight.values();
}

int64_t mapped_bytes() { return mapped; }
int64_t copied_bytes() { return copied; }

// Memory directly from the system, in large pages if supported, and returned to it at once when it is freed.
class OwnMemory {
 public:
  explicit OwnMemory(int64_t bytes) : bytes_(bytes) {
    data_ = mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw OutOfMemory(bytes, "weights");
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

struct Descriptor {
  int number;
  explicit Descriptor(int number) : number(number) {}
  ~Descriptor() {
    if (number >= 0) close(number);
  }
  Descriptor(const Descriptor&) = delete;
};

// Another file of this name, or the same file rewritten, has another identity: device, inode, size, time of the last change.
using Identity = std::tuple<uint64_t, uint64_t, int64_t, int64_t, int64_t>;

Identity identity_of(const struct stat& info) {
#if defined(__APPLE__)
  const timespec changed = info.st_mtimespec;
#else
  const timespec changed = info.st_mtim;
#endif
  return {info.st_dev, info.st_ino, info.st_size, changed.tv_sec, changed.tv_nsec};
}

// A whole file, memory-mapped read-only, shared by all weights that use it.
class Mapping {
 public:
  static std::shared_ptr<const Mapping> of(const std::string& path);
  ~Mapping() {
    unwatch(range_);
    munmap(data_, size_t(bytes_));
    mapped -= bytes_;
  }
  Mapping(const Mapping&) = delete;

  bool damaged() const { return range_->damaged.load(); }
  void check() const {
    if (damaged())
      fail(path_, "expected " + std::to_string(bytes_) + " bytes of weights, the file became shorter while it was in use; restore it");
  }
  // The opened file itself, not what its name refers to now: a file that was replaced whole keeps its content.
  void check_unchanged() const {
    struct stat info;
    if (!damaged() && fstat(file_.number, &info) == 0 && identity_of(info) != identity_)
      fail(path_, "expected the weights that were opened, the file was changed while it was in use; restore it");
  }

  const char* at(int64_t offset) const { return static_cast<const char*>(data_) + offset; }
  int64_t bytes() const { return bytes_; }

  // Drops whole pages in this range from memory; the system reads them from the file again when they are used.
  void release(int64_t begin, int64_t end) const {
    const int64_t page = sysconf(_SC_PAGESIZE);
    begin = (begin + page - 1) / page * page, end = end / page * page;
    if (begin < end) madvise(static_cast<char*>(data_) + begin, size_t(end - begin), MADV_DONTNEED);
  }

 private:
  Mapping(int file, int64_t bytes, const std::string& path, const Identity& identity)
      : path_(path), identity_(identity), file_(fcntl(file, F_DUPFD_CLOEXEC, 0)), bytes_(bytes) {
    data_ = mmap(nullptr, size_t(bytes), PROT_READ, MAP_PRIVATE, file, 0);
    if (data_ == MAP_FAILED) fail(path, std::string("cannot be mapped: ") + std::strerror(errno));
#if defined(MADV_HUGEPAGE)
    // If supported, what is read from the disk from now on is in large pages, since matmul reads across thousands of rows.
    madvise(data_, size_t(bytes), MADV_HUGEPAGE);
#endif
    try {
      range_ = watch(data_, bytes);
    } catch (...) {
      munmap(data_, size_t(bytes));
      throw;
    }
    mapped += bytes;
  }

  std::string path_;
  Identity identity_;
  Descriptor file_;
  void* data_;
  int64_t bytes_;
  Watched* range_;
};

std::mutex known_mutex;
std::map<Identity, std::weak_ptr<const Mapping>> known;

std::shared_ptr<const Mapping> Mapping::of(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info;
  if (file.number < 0 || fstat(file.number, &info) != 0) fail(path, std::string("cannot be opened: ") + std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail(path, "expected a regular file");
  if (info.st_size == 0) fail(path, "expected weights, the file is empty");

  const Identity identity = identity_of(info);
  const std::lock_guard<std::mutex> lock(known_mutex);
  for (auto it = known.begin(); it != known.end();) it = it->second.expired() ? known.erase(it) : std::next(it);
  if (auto mapping = known[identity].lock())
    if (!mapping->damaged()) return mapping;
  std::shared_ptr<const Mapping> mapping(new Mapping(file.number, info.st_size, path, identity));
  known[identity] = mapping;
  return mapping;
}

// One part of a weight, in a memory-mapped file or in own memory.
class Part {
 public:
  Part(const Span& span, int64_t alignment) {
    const void* from = span.memory;
    if (!from) {
      file_ = Mapping::of(span.file);
      if (span.begin > file_->bytes() || span.bytes > file_->bytes() - span.begin)
        fail(span.file, "expected " + std::to_string(span.bytes) + " bytes of a weight from byte " + std::to_string(span.begin) +
                            " on, the file has " + std::to_string(file_->bytes()) + " bytes (truncated?)");
      data_ = from = file_->at(span.begin);
      // Processors and compilers expect aligned numbers, which the file format does not guarantee.
      if (span.begin % alignment == 0) return;
    }
    memory_ = std::make_unique<OwnMemory>(span.bytes);
    data_ = std::memcpy(memory_->data(), from, size_t(span.bytes));
    if (file_) file_->release(span.begin, span.begin + span.bytes);
  }

  const void* data() const { return data_; }
  void check() const {
    if (file_) file_->check();
  }

  // Releases the pages of these bytes if they belong to a file.
  void release(int64_t begin, int64_t end) const {
    if (memory_) return;
    const int64_t offset = static_cast<const char*>(data_) - file_->at(0);
    file_->release(offset + begin, offset + end);
  }

 private:
  std::shared_ptr<const Mapping> file_;
  std::unique_ptr<OwnMemory> memory_;
  const void* data_ = nullptr;
};

StoredWeight::StoredWeight(Encoding encoding, int64_t rows, int64_t columns, const std::vector<Span>& spans, bool rounded)
    : values_{encoding, rows, columns, {}} {
  const std::string matrix = "a weight of " + std::to_string(rows) + " x " + std::to_string(columns) + " numbers";
  if (rows < 1 || columns < 1 || int(spans.size()) != part_count(encoding))
    throw std::runtime_error(matrix + ": expected " + std::to_string(part_count(encoding)) + " spans, found " +
                             std::to_string(spans.size()));
  for (int i = 0; i < int(spans.size()); i++) {
    const int64_t bytes = part_bytes(encoding, i, rows, columns);
    if (spans[i].bytes != bytes)
      throw std::runtime_error(matrix + ": expected " + (bytes < 0 ? "fewer" : std::to_string(bytes)) + " bytes, found " +
                               std::to_string(spans[i].bytes));
    parts_.push_back(std::make_unique<const Part>(spans[i], part_alignment(encoding, i)));
    values_.parts[i] = parts_[i]->data();
  }
  rounded_ = values_;
  if (rounded && (encoding == Encoding::float32 || encoding == Encoding::float16)) round();
  check();
}

void StoredWeight::check() const {
  for (const auto& part : parts_) part->check();
}

void StoredWeight::drop_pages() const {
  for (int i = 0; i < int(parts_.size()); i++) parts_[i]->release(0, part_bytes(values_.encoding, i, values_.rows, values_.columns));
}

void check_files() {
  const std::lock_guard<std::mutex> lock(known_mutex);
  for (const auto& entry : known)
    if (const auto mapping = entry.second.lock()) mapping->check_unchanged();
}

StoredWeight::~StoredWeight() = default;

// Releases the pages of the source piece by piece, so that the two forms are never both in memory as a whole.
void StoredWeight::round() {
  const auto [encoding, rows, columns, parts, first_row] = values_;
  const int64_t piece = std::max<int64_t>(1, (16 << 20) / columns);
  copy_ = std::make_unique<OwnMemory>(part_bytes(Encoding::bfloat16, 0, rows, columns));
  uint16_t* to = static_cast<uint16_t*>(copy_->data());
  for (int64_t row = 0; row < rows; row += piece) {
    const int64_t count = std::min(piece, rows - row);
    kernels().round_to_bfloat16(values_.slice(row, count), to + row * columns);
    parts_[0]->release(part_bytes(encoding, 0, row, columns), part_bytes(encoding, 0, row + count, columns));
  }
  rounded_ = {Encoding::bfloat16, rows, columns, {to}};
}

}  // namespace blip2
