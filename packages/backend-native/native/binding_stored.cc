// What JavaScript sees of stored matrices.
#include "binding.h"
#include "dispatch.h"
#include "stored.h"

namespace blip2 {
namespace {

// What a handle holds: the matrix, until it is released.
struct Handle {
  static constexpr napi_type_tag kTag = {0x8f1c5d0be7a94362, 0xb2d67e41c3905fa8};
  std::unique_ptr<Stored> matrix;
};

StoredType type_argument(Call& call, size_t i) {
  const std::string name = call.text(i, "dtype");
  if (name == "F32") return StoredType::float32;
  if (name == "BF16") return StoredType::bfloat16;
  if (name == "F16") return StoredType::float16;
  call.fail("dtype: expected F32, BF16 or F16, found '" + name + "'");
}

const Stored& stored_argument(Call& call, size_t i) {
  const Handle& handle = call.object<Handle>(i, "stored");
  if (!handle.matrix) call.fail("the stored matrix has been released");
  return *handle.matrix;
}

// storeMatrix(file, begin, dtype, rows, columns, rounded) → handle
void store_matrix(Call& call) {
  auto handle = std::make_unique<Handle>();
  const StoredType type = type_argument(call, 2);
  const int64_t rows = call.size(3, "rows"), columns = call.size(4, "columns");
  handle->matrix = std::make_unique<Stored>(call.path(0, "file"), call.size(1, "begin"), type, rows, columns,
                                            call.boolean(5, "rounded"));
  call.give(std::move(handle));
}

// releaseStored(stored)
void release_stored(Call& call) { call.object<Handle>(0, "stored").matrix.reset(); }

// storedFloats(stored, y): every element, exactly
void stored_floats(Call& call) {
  const StoredMatrix& w = stored_argument(call, 0).values();
  const int64_t n = w.rows * w.columns;
  kernels().widen(w, 0, call.floats(1, "y", n), n);
}

// storedRows(stored, indices, y): rows, exactly
void stored_rows(Call& call) {
  const StoredMatrix& w = stored_argument(call, 0).values();
  const int64_t M = call.length(1, "indices");
  const int32_t* indices = call.ints(1, "indices", M);
  call.expect_range("indices", indices, M, 0, w.rows);
  kernels().widen_rows(w, indices, call.floats(2, "y", M * w.columns), M);
}

// Bytes in use: of files that are mapped, and of copies made beside them.
void copied(Call& call) { call.give(double(copied_bytes())); }
void mapped(Call& call) { call.give(double(mapped_bytes())); }

}  // namespace

const Stored* stored_or_null(Call& call, size_t i) {
  return call.is_object<Handle>(i) ? &stored_argument(call, i) : nullptr;
}

void define_stored(napi_env env, napi_value exports) {
  define<store_matrix>(env, exports, "storeMatrix");
  define<release_stored>(env, exports, "releaseStored");
  define<stored_floats>(env, exports, "storedFloats");
  define<stored_rows>(env, exports, "storedRows");
  define<mapped>(env, exports, "mappedBytes");
  define<copied>(env, exports, "copiedBytes");
}

}  // namespace blip2
