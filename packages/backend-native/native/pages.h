// Keys and values in pages, as arguments from JavaScript.
#pragma once
#include <vector>

#include "binding.h"
#include "dispatch.h"

namespace blip2 {

void check_heads(const Call& call, int64_t D, int64_t H);   // of a width D

// Arguments i … i + 3: lengths, ks, vs and rows, lists with one entry per page. Elements are read here, before any pointer.
struct Pages {
  std::vector<int64_t> lengths;
  std::vector<napi_value> k, v, rows;

  Pages(const Call& call, size_t i)
      : k(call.elements(i + 1, "k", call.list_length(i, "lengths"))),
        v(call.elements(i + 2, "v", int64_t(k.size()))),
        rows(call.elements(i + 3, "rows", int64_t(k.size()))) {
    for (size_t page = 0; page < k.size(); page++) lengths.push_back(call.size_of_list(i, "lengths", int64_t(page)));
  }

  // Checks every page for a.B items of width a.D and returns the number of positions. Sizes of any value are refused here, before there
  // is memory for addresses.
  int64_t check(const Call& call, const PagedAttention& a) const {
    int64_t positions = 0;
    for (size_t page = 0; page < lengths.size(); page++) {
      find_rows(call, k, "k", page, a, nullptr);
      find_rows(call, v, "v", page, a, nullptr);
      positions += lengths[page];
    }
    return positions;
  }

  // Page `page` of a list is [rows, T, D]. Writes, for each item b, the address of each of its T rows from to[b * Tk] on.
  void find_rows(const Call& call, const std::vector<napi_value>& list, const char* what, size_t page, const PagedAttention& a,
                 const float** to) const {
    const int64_t T = lengths[page];
    const Count size{T, a.D};
    int64_t length;
    const float* data = call.floats_of(list, what, int64_t(page), &length);
    const int64_t count = size.value > 0 ? length / size.value : 0;
    if (count < 1 || length != count * size.value)
      call.fail(std::string(what) + "[" + std::to_string(page) + "]: expected whole rows of " + size.text() + " elements, found " +
                std::to_string(length));
    const int32_t* picked = call.optional_ints_of(rows, "rows", int64_t(page), a.B);
    if (picked) call.expect_range("rows", picked, a.B, 0, count);
    else if (count != a.B) call.fail(std::string(what) + ": expected " + std::to_string(a.B) + " rows, found " + std::to_string(count));
    for (int64_t b = 0; to && b < a.B; b++)
      for (int64_t j = 0; j < T; j++) to[b * a.Tk + j] = data + ((picked ? picked[b] : b) * T + j) * a.D;
  }
};

// The address of each key and value: of the pages, which have been checked, and of `last_k` and `last_v` [B, a.Tk - pages, D] after them.
struct PageRows {
  std::vector<const float*> k, v;

  PageRows(const Call& call, const Pages& pages, const PagedAttention& a, const float* last_k = nullptr, const float* last_v = nullptr) {
    const Count addresses{a.B, a.Tk};
    if (addresses.value < 0) throw std::bad_alloc();
    k.resize(size_t(addresses.value)), v.resize(k.size());
    int64_t at = 0;
    for (size_t page = 0; page < pages.lengths.size(); at += pages.lengths[page++]) {
      pages.find_rows(call, pages.k, "k", page, a, k.data() + at);
      pages.find_rows(call, pages.v, "v", page, a, v.data() + at);
    }
    const int64_t T = a.Tk - at;
    for (int64_t b = 0; b < a.B; b++)
      for (int64_t j = 0; j < T; j++) {
        k[size_t(b * a.Tk + at + j)] = last_k + (b * T + j) * a.D;
        v[size_t(b * a.Tk + at + j)] = last_v + (b * T + j) * a.D;
      }
  }
};

}  // namespace blip2
