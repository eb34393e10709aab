// Matrices of a safetensors file, used where the file lies in memory instead of as copies.
#pragma once
#include <memory>
#include <string>

#include "dispatch.h"
#include "stored_matrix.h"

namespace blip2 {

class Mapping;
class OwnMemory;

// Throws std::runtime_error for a file that cannot be mapped or does not reach to the end of the matrix.
class Stored {
 public:
  // `begin` is the first byte in the file. `rounded` also makes a bfloat16 copy for products (of other types only).
  Stored(const std::string& path, int64_t begin, StoredType type, int64_t rows, int64_t columns, bool rounded);
  ~Stored();

  const StoredMatrix& values() const { return values_; }    // exactly as the file has them
  const StoredMatrix& rounded() const { return rounded_; }  // the bfloat16 copy, or else the values

 private:
  void round();

  std::shared_ptr<const Mapping> file_;
  std::unique_ptr<OwnMemory> aligned_, copy_;
  StoredMatrix values_, rounded_;
};

const StoredMatrix& factor(const Stored& stored, Precision);   // what matmuls in that precision read

// Bytes in use now: of mapped files (address space, not memory), and of copies.
int64_t mapped_bytes();
int64_t copied_bytes();

}  // namespace blip2
