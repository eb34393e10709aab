// A thin wrapper of node_api.h: reads checked arguments and turns failures into JavaScript exceptions that name the function, the
// argument, what was expected and what was found.
#pragma once
#include <node_api.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "dispatch.h"
#include "out_of_memory.h"
#include "stored.h"

namespace blip2 {

// A number of elements: a product of sizes from JavaScript, each up to 2^53. -1 if it overflows, which no array matches. All products of
// sizes that have not been compared with an array yet are computed here.
struct Count {
  int64_t value = 1;

  Count(int64_t n) : value(n) {}
  Count(std::initializer_list<int64_t> sizes) {
    for (const int64_t size : sizes)
      if (size == 0) value = 0;
    for (const int64_t size : sizes)
      if (value < 0 || size < 0 || __builtin_mul_overflow(value, size, &value)) value = -1;
  }
  std::string text() const { return value < 0 ? "more than any array has" : std::to_string(value); }
};

// Reading an element of a list or a property can run JavaScript (a getter), which may detach or resize any buffer. A function therefore
// reads all elements and properties first, with `elements` and `spans`, and pointers afterwards.
class Call {
 public:
  Call(napi_env env, napi_callback_info info) : env_(env) {
    void* data = nullptr;
    check(napi_get_cb_info(env, info, &argc_, argv_, nullptr, &data));
    name_ = static_cast<const char*>(data);
  }

  [[noreturn]] void fail(const std::string& why) const {
    throw std::runtime_error(std::string("native ") + name() + ": " + why);
  }

  float* floats(size_t i, const char* what, const Count& expected) const {
    return static_cast<float*>(array(i, what, napi_float32_array, "Float32Array", expected));
  }
  float* optional_floats(size_t i, const char* what, const Count& expected) const {
    return given(i, what) ? floats(i, what, expected) : nullptr;
  }
  bool given(size_t i, const char* what) const {
    napi_valuetype type;
    check(napi_typeof(env_, argument(i, what), &type));
    return type != napi_null && type != napi_undefined;
  }
  uint8_t* bytes(size_t i, const char* what, const Count& expected) const {
    return static_cast<uint8_t*>(array(i, what, napi_uint8_array, "Uint8Array", expected));
  }
  int32_t* ints(size_t i, const char* what, const Count& expected) const {
    return int32s(argument(i, what), what, expected);
  }
  // Any typed array of 32-bit elements.
  uint32_t* words(size_t i, const char* what, int64_t* length) const {
    napi_typedarray_type type;
    size_t count;
    void* data;
    view(i, what, &type, &count, &data);
    if (type != napi_float32_array && type != napi_int32_array && type != napi_uint32_array)
      fail(std::string(what) + ": expected a typed array of 32-bit elements");
    *length = int64_t(count);
    return static_cast<uint32_t*>(data);
  }
  int64_t length(size_t i, const char* what) const {
    napi_typedarray_type type;
    size_t count;
    void* data;
    view(i, what, &type, &count, &data);
    return int64_t(count);
  }

  Encoding encoding(size_t i, const char* what) const {
    const std::string kind = text(i, what);
    if (kind == "F32") return Encoding::float32;
    if (kind == "BF16") return Encoding::bfloat16;
    if (kind == "F16") return Encoding::float16;
    if (kind == "INT8") return Encoding::int8;
    if (kind == "INT4") return Encoding::int4;
    if (kind == "BNB8") return Encoding::bnb8;
    if (kind == "BNB4") return Encoding::bnb4;
    fail(std::string(what) + ": expected F32, BF16, F16, INT8, INT4, BNB8 or BNB4, found '" + kind + "'");
  }
  // A JavaScript array of Float32Arrays or of numbers, element by element.
  int64_t list_length(size_t i, const char* what) const {
    uint32_t count = 0;
    if (napi_get_array_length(env_, argument(i, what), &count) != napi_ok) fail(std::string(what) + ": expected an array");
    return int64_t(count);
  }
  void expect_list(size_t i, const char* what, int64_t expected) const {
    const int64_t count = list_length(i, what);
    if (count != expected)
      fail(std::string(what) + ": expected " + std::to_string(expected) + " entries, found " + std::to_string(count));
  }
  // The elements of a list of typed arrays (or null), for `floats_of` and `optional_ints_of`.
  std::vector<napi_value> elements(size_t i, const char* what, int64_t count) const {
    expect_list(i, what, count);
    std::vector<napi_value> values;
    for (int64_t at = 0; at < count; at++) {
      const napi_value value = element(i, at);
      napi_valuetype type;
      check(napi_typeof(env_, value, &type));
      if (type != napi_object && type != napi_null) fail(entry(what, at) + ": expected a typed array");
      values.push_back(value);
    }
    return values;
  }
  float* floats_of(const std::vector<napi_value>& list, const char* what, int64_t at, int64_t* length) const {
    napi_typedarray_type type;
    size_t count;
    void* data;
    if (napi_get_typedarray_info(env_, list[size_t(at)], &type, &count, &data, nullptr, nullptr) != napi_ok ||
        type != napi_float32_array)
      fail(entry(what, at) + ": expected a Float32Array");
    *length = int64_t(count);
    return static_cast<float*>(data);
  }
  float* floats_of(const std::vector<napi_value>& list, const char* what, int64_t at, int64_t expected) const {
    int64_t length;
    float* data = floats_of(list, what, at, &length);
    if (length != expected)
      fail(entry(what, at) + ": expected " + std::to_string(expected) + " elements, found " + std::to_string(length));
    return data;
  }
  bool given_of(const std::vector<napi_value>& list, int64_t at) const {
    napi_valuetype kind;
    check(napi_typeof(env_, list[size_t(at)], &kind));
    return kind != napi_null;
  }
  const float* optional_floats_of(const std::vector<napi_value>& list, const char* what, int64_t at, int64_t expected) const {
    return given_of(list, at) ? floats_of(list, what, at, expected) : nullptr;
  }
  const int32_t* optional_ints_of(const std::vector<napi_value>& list, const char* what, int64_t at, int64_t expected) const {
    return given_of(list, at) ? int32s(list[size_t(at)], entry(what, at).c_str(), expected) : nullptr;
  }
  double number_of_list(size_t i, const char* what, int64_t at) const {
    double value;
    if (napi_get_value_double(env_, element(i, at), &value) != napi_ok) fail(entry(what, at) + ": expected a number");
    return value;
  }
  int64_t size_of_list(size_t i, const char* what, int64_t at) const { return size_of(element(i, at), entry(what, at).c_str()); }

  double number(size_t i, const char* what) const {
    double value;
    if (napi_get_value_double(env_, argument(i, what), &value) != napi_ok) fail(std::string(what) + ": expected a number");
    return value;
  }
  bool boolean(size_t i, const char* what) const {
    bool value;
    if (napi_get_value_bool(env_, argument(i, what), &value) != napi_ok) fail(std::string(what) + ": expected a boolean");
    return value;
  }
  int64_t size(size_t i, const char* what) const { return size_of(argument(i, what), what); }
  uint32_t word(size_t i, const char* what) const { return uint32_t(whole(number(i, what), what, 4294967295.0)); }
  std::string text(size_t i, const char* what) const {
    char buffer[64];
    size_t length;
    if (napi_get_value_string_utf8(env_, argument(i, what), buffer, sizeof buffer, &length) != napi_ok)
      fail(std::string(what) + ": expected a string");
    return std::string(buffer, length);
  }
  // Of this call's matmuls: float32 if the argument is left out.
  Precision precision(size_t i) const {
    if (i >= argc_) return Precision::float32;
    const std::string name = text(i, "precision");
    if (name == "float32") return Precision::float32;
    if (name == "int8") return Precision::int8;
    if (name != "bfloat16") fail("precision: expected float32, bfloat16 or int8, found '" + name + "'");
    if (!has_bfloat16())
      fail("precision: bfloat16 needs a processor with AVX512-BF16 (instruction set avx512bf16), found " +
           std::string(kernels().level));
    return Precision::bfloat16;
  }
  // `count` spans, each { file, begin, bytes } or { bytes: Uint8Array }.
  std::vector<Span> spans(size_t i, const char* what, int64_t count) const {
    expect_list(i, what, count);
    std::vector<Span> spans;
    std::vector<napi_value> memory;
    for (int64_t at = 0; at < count; at++) {
      const napi_value span = element(i, at);
      memory.push_back(property(span, "bytes"));
      napi_valuetype type;
      check(napi_typeof(env_, memory.back(), &type));
      if (type == napi_number) {
        const std::string file = path(property(span, "file"), entry(what, at) + ".file");
        spans.push_back({file, size_of(property(span, "begin"), "begin"), size_of(memory.back(), "bytes"), nullptr});
      } else {
        spans.push_back({"", 0, -1, nullptr});
      }
    }
    for (int64_t at = 0; at < count; at++) {
      Span& span = spans[size_t(at)];
      if (span.bytes >= 0) continue;
      napi_typedarray_type type;
      size_t bytes;
      void* data;
      if (napi_get_typedarray_info(env_, memory[size_t(at)], &type, &bytes, &data, nullptr, nullptr) != napi_ok ||
          type != napi_uint8_array)
        fail(entry(what, at) + ".bytes: expected a Uint8Array or a number");
      span.bytes = int64_t(bytes), span.memory = data;
    }
    return spans;
  }
  // The C++ object of a handle made by `give`.
  template <class T>
  T& object(size_t i, const char* what) const {
    return object_of<T>(argument(i, what), what);
  }
  template <class T>
  T& object_of(napi_value value, const char* what) const {
    void* object = nullptr;
    if (!is_object_value<T>(value) || napi_unwrap(env_, value, &object) != napi_ok)
      fail(std::string(what) + ": expected a handle from this addon");
    return *static_cast<T*>(object);
  }
  template <class T>
  bool is_object(size_t i) const {
    return i < argc_ && is_object_value<T>(argv_[i]);
  }
  template <class T>
  bool is_object_value(napi_value value) const {
    bool ours = false;
    return napi_check_object_type_tag(env_, value, &T::kTag, &ours) == napi_ok && ours;
  }
  // A JavaScript array of sizes; `rank` < 0 accepts any rank from 1 to kMaxRank. Returns the rank.
  int sizes(size_t i, const char* what, int64_t* out, int rank) const {
    uint32_t count = 0;
    if (napi_get_array_length(env_, argument(i, what), &count) != napi_ok) fail(std::string(what) + ": expected an array");
    if (count < 1 || count > uint32_t(kMaxRank) || (rank >= 0 && count != uint32_t(rank)))
      fail(std::string(what) + ": expected " + (rank < 0 ? "1 … 8" : std::to_string(rank)) + " entries, found " +
           std::to_string(count));
    for (uint32_t axis = 0; axis < count; axis++) {
      napi_value element;
      double value = -1;
      check(napi_get_element(env_, argv_[i], axis, &element));
      napi_get_value_double(env_, element, &value);
      out[axis] = whole(value, what, 9007199254740991.0);
    }
    return int(count);
  }

  // Fails unless every value is in low … limit - 1.
  void expect_range(const char* what, const int32_t* values, int64_t n, int64_t low, int64_t limit) const {
    for (int64_t i = 0; i < n; i++)
      if (values[i] < low || values[i] >= limit)
        fail(entry(what, i) + ": expected " + (low < 0 ? "a number below " : "0 … ") + std::to_string(low < 0 ? limit : limit - 1) +
             ", found " + std::to_string(values[i]));
  }

  void give(const std::string& text) { check(napi_create_string_utf8(env_, text.data(), text.size(), &result_)); }
  void give(double number) { check(napi_create_double(env_, number, &result_)); }
  // Returns a handle; the object is deleted when JavaScript's garbage collector frees the handle.
  template <class T>
  void give(std::unique_ptr<T> object) {
    check(napi_create_object(env_, &result_));
    check(napi_type_tag_object(env_, result_, &T::kTag));
    const auto finalize = [](napi_env, void* data, void*) { delete static_cast<T*>(data); };
    check(napi_wrap(env_, result_, object.get(), finalize, nullptr, nullptr));
    object.release();
  }
  napi_value result() const { return result_; }
  const char* name() const { return name_ ? name_ : ""; }

  // A weight that this call reads: its file is checked before and, since it may become shorter meanwhile, afterwards.
  const StoredWeight& reads(const StoredWeight& weight) {
    weight.check();
    weights_.push_back(&weight);
    return weight;
  }
  void check_weights() const {
    for (const StoredWeight* weight : weights_) weight->check();
  }

 private:
  static constexpr size_t kMaxArguments = 22;

  void check(napi_status status) const {
    if (status != napi_ok) fail("Node-API call failed with status " + std::to_string(int(status)));
  }
  napi_value argument(size_t i, const char* what) const {
    if (i >= argc_) fail(std::string(what) + " (argument " + std::to_string(i) + ") is missing");
    return argv_[i];
  }
  napi_value element(size_t i, int64_t at) const {
    napi_value value;
    check(napi_get_element(env_, argv_[i], uint32_t(at), &value));
    return value;
  }
  napi_value property(napi_value object, const char* name) const {
    napi_value value;
    check(napi_get_named_property(env_, object, name, &value));
    return value;
  }
  int64_t size_of(napi_value value, const char* what) const {
    double number;
    if (napi_get_value_double(env_, value, &number) != napi_ok) fail(std::string(what) + ": expected a number");
    return whole(number, what, 9007199254740991.0);
  }
  static std::string entry(const char* what, int64_t at) { return std::string(what) + "[" + std::to_string(at) + "]"; }
  void view(size_t i, const char* what, napi_typedarray_type* type, size_t* count, void** data) const {
    if (napi_get_typedarray_info(env_, argument(i, what), type, count, data, nullptr, nullptr) != napi_ok)
      fail(std::string(what) + ": expected a typed array");
  }
  void* array(size_t i, const char* what, napi_typedarray_type wanted, const char* name, const Count& expected) const {
    napi_typedarray_type type;
    size_t count;
    void* data;
    view(i, what, &type, &count, &data);
    if (type != wanted) fail(std::string(what) + ": expected a " + name);
    if (int64_t(count) != expected.value)
      fail(std::string(what) + ": expected " + expected.text() + " elements, found " + std::to_string(count));
    return data;
  }
  // Indices are checked once and then trusted, so another thread must not be able to change them.
  int32_t* int32s(napi_value value, const char* what, const Count& expected) const {
    napi_typedarray_type type;
    size_t count;
    void* data;
    napi_value buffer;
    bool unshared = false;
    if (napi_get_typedarray_info(env_, value, &type, &count, &data, &buffer, nullptr) != napi_ok || type != napi_int32_array)
      fail(std::string(what) + ": expected an Int32Array");
    check(napi_is_arraybuffer(env_, buffer, &unshared));
    if (!unshared) fail(std::string(what) + ": expected an Int32Array in memory of this thread, found shared memory");
    if (int64_t(count) != expected.value)
      fail(std::string(what) + ": expected " + expected.text() + " elements, found " + std::to_string(count));
    return static_cast<int32_t*>(data);
  }
  std::string path(napi_value value, const std::string& what) const {
    size_t length = 0;
    if (napi_get_value_string_utf8(env_, value, nullptr, 0, &length) != napi_ok) fail(what + ": expected a string");
    std::string path(length, '\0');
    check(napi_get_value_string_utf8(env_, value, &path[0], length + 1, &length));
    if (path.find('\0') != std::string::npos) fail(what + ": expected a path, found a zero byte in it");
    return path;
  }
  int64_t whole(double value, const char* what, double limit) const {
    if (!(value >= 0 && value <= limit) || value != std::floor(value))
      fail(std::string(what) + ": expected a whole number from 0, found " + std::to_string(value));
    return int64_t(value);
  }

  napi_env env_;
  size_t argc_ = kMaxArguments;
  napi_value argv_[kMaxArguments];
  const char* name_ = nullptr;
  napi_value result_ = nullptr;
  std::vector<const StoredWeight*> weights_;
};

// Throws in JavaScript, without allocating.
inline void throw_error(napi_env env, const char* function, const char* why) {
  char text[256];
  std::snprintf(text, sizeof text, "native %s: %s", function, why);
  napi_throw_error(env, nullptr, text);
}

template <void (*function)(Call&)>
napi_value enter(napi_env env, napi_callback_info info) {
  const char* name = "";
  try {
    Call call(env, info);
    name = call.name();
    function(call);
    call.check_weights();
    return call.result();
  } catch (const OutOfMemory& error) {
    throw_error(env, name, error.what());
  } catch (const std::bad_alloc&) {
    throw_error(env, name, "out of memory");
  } catch (const std::length_error&) {   // of a std::vector
    throw_error(env, name, "out of memory");
  } catch (const std::exception& error) {
    napi_throw_error(env, nullptr, error.what());
  }
  return nullptr;
}

template <void (*function)(Call&)>
void define(napi_env env, napi_value exports, const char* name) {
  napi_value value;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, enter<function>, const_cast<char*>(name), &value);
  napi_set_named_property(env, exports, name, value);
}

void define_attention(napi_env env, napi_value exports);
void define_matmul(napi_env env, napi_value exports);

// The weight of a handle made by `storeWeight`; null for any other argument. @throws if it has been released.
const StoredWeight* stored_or_null(Call& call, size_t i);
const StoredWeight* stored_element(Call& call, napi_value value);   // the same of an element of a list
void check_stored(const Call& call, const WeightView& w, int64_t rows, int64_t columns);

Activation activation_argument(const Call& call, size_t i);
void check_heads(const Call& call, int64_t D, int64_t H);   // of a width D
// An element of a list: b [K, N] as `pack` wrote it.
const float* packed_of(const Call& call, const std::vector<napi_value>& list, const char* what, int64_t at, int64_t N, int64_t K,
                       Precision precision);
void define_decoder(napi_env env, napi_value exports);
void define_encoder(napi_env env, napi_value exports);

void define_stored(napi_env env, napi_value exports);
void define_losses(napi_env env, napi_value exports);
#if defined(BLIP2_FAULTS)
void define_faults(napi_env env, napi_value exports);   // of spec/faults.cc
#endif

}  // namespace blip2
