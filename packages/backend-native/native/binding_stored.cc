// Stored weights, exported to JavaScript.
#include "binding.h"
#include "dispatch.h"

namespace blip2 {
namespace {

// The content of a handle: the weight, until it is released.
struct Handle {
  static constexpr napi_type_tag kTag = {0x8f1c5d0be7a94362, 0xb2d67e41c3905fa8};
  std::unique_ptr<StoredWeight> weight;
};

const StoredWeight& weight_of(Call& call, const Handle& handle) {
  if (!handle.weight) call.fail("the stored weight has been released");
  return call.reads(*handle.weight);
}

const StoredWeight& stored_argument(Call& call, size_t i) { return weight_of(call, call.object<Handle>(i, "stored")); }

// storeWeight(encoding, rows, columns, spans, rounded) → handle; one span per part of the encoding
void store_weight(Call& call) {
  auto handle = std::make_unique<Handle>();
  const Encoding encoding = call.encoding(0, "encoding");
  const std::vector<Span> spans = call.spans(3, "spans", part_count(encoding));
  handle->weight = std::make_unique<StoredWeight>(encoding, call.size(1, "rows"), call.size(2, "columns"), spans, call.boolean(4, "rounded"));
  call.give(std::move(handle));
}

// quantise(stored, factors, blocks, scales): the parts of the int8 encoding, with a factor for each column
void quantise(Call& call) {
  const WeightView& w = stored_argument(call, 0).values();
  const float* factors = call.floats(1, "factors", w.columns);
  uint8_t* blocks = call.bytes(2, "blocks", part_bytes(Encoding::int8, 0, w.rows, w.columns));
  kernels().quantise(w, factors, blocks, call.floats(3, "scales", w.rows));
}

// columnMaxima(x or stored, y): the largest magnitude of each column
void column_maxima(Call& call) {
  if (const StoredWeight* weight = stored_or_null(call, 0)) {
    const WeightView& w = weight->values();
    return kernels().column_maxima(w, call.floats(1, "y", w.columns));
  }
  const int64_t K = call.length(1, "y"), n = call.length(0, "x");
  if (K == 0 || n % K != 0) call.fail("expected x of whole rows of the length of y");
  kernels().column_maxima({Encoding::float32, n / K, K, {call.floats(0, "x", n)}}, call.floats(1, "y", K));
}

// dropPages(stored)
void drop_pages(Call& call) { stored_argument(call, 0).drop_pages(); }

// quantiseInt4(stored, factors, codes, steps, scales): likewise of the int4 encoding
void quantise_int4(Call& call) {
  const WeightView& w = stored_argument(call, 0).values();
  const float* factors = call.floats(1, "factors", w.columns);
  uint8_t* codes = call.bytes(2, "codes", part_bytes(Encoding::int4, 0, w.rows, w.columns));
  uint8_t* steps = call.bytes(3, "steps", part_bytes(Encoding::int4, 1, w.rows, w.columns));
  kernels().quantise_int4(w, factors, codes, steps, call.floats(4, "scales", w.rows));
}

// inputRoot(x, leftOut, damping, room, root): whether there is one
void input_root(Call& call) {
  const int64_t n = call.length(0, "x"), out = call.length(1, "leftOut"), squares = call.length(4, "root");
  const int64_t K = int64_t(__builtin_sqrt(double(squares)));
  if (K == 0 || K * K != squares) call.fail("expected a square root");
  if (n == 0 || n % K != 0 || out % K != 0) call.fail("expected x and leftOut of whole rows");
  const InputRows x{call.floats(0, "x", n), call.floats(1, "leftOut", out), n / K, out / K, K};
  float* room = call.floats(3, "room", {K, std::max(kRootBlock, x.left_out)});
  call.give(double(kernels().input_root(x, float(call.number(2, "damping")), room, call.floats(4, "root", squares))));
}

// quantiseGptq(stored, factors, root, room, codes, steps, scales): the parts of the int4 encoding
void quantise_gptq(Call& call) {
  const WeightView& w = stored_argument(call, 0).values();
  const float* factors = call.floats(1, "factors", w.columns);
  const float* root = call.floats(2, "root", {w.columns, w.columns});
  float* room = call.floats(3, "room", {w.rows, w.columns + kGroupSide});
  uint8_t* codes = call.bytes(4, "codes", part_bytes(Encoding::int4, 0, w.rows, w.columns));
  uint8_t* steps = call.bytes(5, "steps", part_bytes(Encoding::int4, 1, w.rows, w.columns));
  kernels().quantise_int4_gptq(w, factors, root, room, {codes, steps, call.floats(6, "scales", w.rows)});
}

// releaseStored(stored)
void release_stored(Call& call) { call.object<Handle>(0, "stored").weight.reset(); }

// storedFloats(stored, y): all numbers, exactly
void stored_floats(Call& call) {
  const WeightView& w = stored_argument(call, 0).values();
  kernels().dequantise(w, call.floats(1, "y", {w.rows, w.columns}));
}

// storedRows(stored, indices, y): rows, exactly
void stored_rows(Call& call) {
  const WeightView& w = stored_argument(call, 0).values();
  const int64_t M = call.length(1, "indices");
  const int32_t* indices = call.ints(1, "indices", M);
  call.expect_range("indices", indices, M, 0, w.rows);
  kernels().dequantise_rows(w, indices, call.floats(2, "y", {M, w.columns}), M);
}

// checkFiles(): throws if a mapped file was rewritten
void check_mapped(Call&) { check_files(); }

// Bytes in use: of files that are mapped, and of copies made beside them.
void copied(Call& call) { call.give(double(copied_bytes())); }
void mapped(Call& call) { call.give(double(mapped_bytes())); }

}  // namespace

const StoredWeight* stored_or_null(Call& call, size_t i) {
  return call.is_object<Handle>(i) ? &stored_argument(call, i) : nullptr;
}

const StoredWeight* stored_element(Call& call, napi_value value) {
  return call.is_object_value<Handle>(value) ? &weight_of(call, call.object_of<Handle>(value, "stored")) : nullptr;
}

void define_stored(napi_env env, napi_value exports) {
  define<store_weight>(env, exports, "storeWeight");
  define<quantise>(env, exports, "quantise");
  define<column_maxima>(env, exports, "columnMaxima");
  define<drop_pages>(env, exports, "dropPages");
  define<quantise_int4>(env, exports, "quantiseInt4");
  define<input_root>(env, exports, "inputRoot");
  define<quantise_gptq>(env, exports, "quantiseGptq");
  define<release_stored>(env, exports, "releaseStored");
  define<stored_floats>(env, exports, "storedFloats");
  define<stored_rows>(env, exports, "storedRows");
  define<check_mapped>(env, exports, "checkFiles");
  define<mapped>(env, exports, "mappedBytes");
  define<copied>(env, exports, "copiedBytes");
}

}  // namespace blip2
