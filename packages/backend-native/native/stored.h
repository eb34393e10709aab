// Stored weights: encoded as in their checkpoint, in a memory-mapped file or in memory of the addon.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "dispatch.h"
#include "weight_view.h"

namespace blip2 {

class Part;
class OwnMemory;

// The location of a part of a weight: bytes of a file, or bytes in memory, which are copied.
struct Span {
  std::string file;
  int64_t begin, bytes;
  const void* memory;   // null for a file
};

class StoredWeight {
 public:
  // One span per part. `rounded` also makes a bfloat16 copy for matmul, of other encodings.
  // @throws std::runtime_error for wrong sizes, a file that cannot be mapped or one that is too short
  StoredWeight(Encoding encoding, int64_t rows, int64_t columns, const std::vector<Span>& spans, bool rounded);
  ~StoredWeight();

  // @throws std::runtime_error if its file became shorter, so that numbers read since then may be zeros
  void check() const;
  void drop_pages() const;   // of memory-mapped parts; they are read again when they are used
  const WeightView& values() const { return values_; }    // the exact values
  const WeightView& rounded() const { return rounded_; }  // the bfloat16 copy, if there is one, else the exact values

 private:
  void round();

  std::vector<std::unique_ptr<const Part>> parts_;
  std::unique_ptr<OwnMemory> copy_;
  WeightView values_, rounded_;
};

const WeightView& matmul_operand(const StoredWeight& weight, Precision precision);   // for matmul in that precision

// @throws std::runtime_error naming the first mapped file that was rewritten since it was opened. Files that became shorter are reported by
// `check` at the moment of use.
void check_files();

// Bytes in use now: of mapped files (address space, not memory), and of copies.
int64_t mapped_bytes();
int64_t copied_bytes();

}  // namespace blip2
