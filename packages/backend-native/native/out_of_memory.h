// The exception for memory that the system does not give. It is made without allocating.
#pragma once
#include <cstdint>
#include <cstdio>
#include <new>

namespace blip2 {

class OutOfMemory : public std::bad_alloc {
 public:
  OutOfMemory(int64_t bytes, const char* purpose) {
    if (bytes < 1000000) std::snprintf(text_, sizeof text_, "out of memory: expected %d bytes for %s", int(bytes), purpose);
    else std::snprintf(text_, sizeof text_, "out of memory: expected %.1f MB for %s", double(bytes) / 1e6, purpose);
  }
  const char* what() const noexcept override { return text_; }

 private:
  char text_[96];
};

}  // namespace blip2
