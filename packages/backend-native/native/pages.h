// Keys and values in pages, as arguments from JavaScript.
#pragma once
#include <vector>

#include "binding.h"
#include "dispatch.h"

namespace blip2 {

// Arguments i … i + 3: lengths, ks, vs and rows; `lengths` and `rows` have one entry per page, ks and vs one per layer and page, layer after
// layer. Elements are read by the constructor, before any pointer, which `check` finds.
class Pages {
 public:
  Pages(const Call& call, size_t i, int64_t layers = 1) : rows_(call.elements(i + 3, "rows", call.list_length(i, "lengths"))) {
    const int64_t count = int64_t(rows_.size());
    k_ = call.elements(i + 1, "k", layers * count), v_ = call.elements(i + 2, "v", layers * count);
    for (int64_t page = 0; page < count; page++) pages_.push_back({call.size_of_list(i, "lengths", page), 0, nullptr});
  }

  // Checks every page for a.B items of width a.D and returns the number of positions. Sizes of any value are refused here, before there
  // is memory for addresses.
  int64_t check(const Call& call, const PagedAttention& a) {
    int64_t positions = 0;
    for (size_t i = 0; i < pages_.size(); i++) {
      Page& page = pages_[i];
      const Count size{page.length, a.D};
      int64_t length;
      call.floats_of(k_, "k", int64_t(i), &length);
      page.rows = size.value > 0 ? length / size.value : 0;
      if (page.rows < 1 || length != page.rows * size.value)
        call.fail("k[" + std::to_string(i) + "]: expected whole rows of " + size.text() + " elements, found " + std::to_string(length));
      page.picked = call.optional_ints_of(rows_, "rows", int64_t(i), a.B);
      if (page.picked) call.expect_range("rows", page.picked, a.B, 0, page.rows);
      else if (page.rows != a.B) call.fail("k: expected " + std::to_string(a.B) + " rows, found " + std::to_string(page.rows));
      positions += page.length;
    }
    for (size_t at = 0; at < k_.size(); at++) {
      const Page& page = pages_[at % pages_.size()];
      const int64_t length = page.rows * page.length * a.D;
      keys_.push_back(call.floats_of(k_, "k", int64_t(at), length)), values_.push_back(call.floats_of(v_, "v", int64_t(at), length));
    }
    return positions;
  }

 private:
  struct Page {
    int64_t length, rows;
    const int32_t* picked;   // the row of each item; null: the same row
  };
  std::vector<Page> pages_;
  std::vector<napi_value> rows_, k_, v_;
  std::vector<const float*> keys_, values_;

  friend struct PageRows;
};

// The address of each key and value of a layer, [B, Tk].
struct PageRows {
  std::vector<const float*> k, v;

  explicit PageRows(const PagedAttention& a) {
    const Count addresses{a.B, a.Tk};
    if (addresses.value < 0) throw std::bad_alloc();
    k.resize(size_t(addresses.value)), v.resize(k.size());
  }

  // Those of the pages, which have been checked, and of `last_k` and `last_v` [B, a.Tk - pages, D] after them.
  void find(const Pages& pages, size_t layer, const PagedAttention& a, const float* last_k = nullptr, const float* last_v = nullptr) {
    const size_t count = pages.pages_.size();
    int64_t at = 0;
    for (size_t i = 0; i < count; at += pages.pages_[i++].length)
      find_page(pages.pages_[i], pages.keys_[layer * count + i], pages.values_[layer * count + i], at, a);
    find_page({a.Tk - at, a.B, nullptr}, last_k, last_v, at, a);
  }

 private:
  void find_page(const Pages::Page& page, const float* keys, const float* values, int64_t at, const PagedAttention& a) {
    for (int64_t b = 0; b < a.B; b++) {
      const int64_t row = (page.picked ? page.picked[b] : b) * page.length;
      for (int64_t j = 0; j < page.length; j++) {
        k[size_t(b * a.Tk + at + j)] = keys + (row + j) * a.D;
        v[size_t(b * a.Tk + at + j)] = values + (row + j) * a.D;
      }
    }
  }
};

}  // namespace blip2
