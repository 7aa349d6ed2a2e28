// Python texts as views of their bytes, without a copy.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/bindings.h"

namespace fastreason {

// The bytes of a list of str or bytes. A str with lone surrogates is encoded as Python's "surrogatepass" does. Holds
// the texts, whatever other threads do to the list.
class Texts {
 public:
  explicit Texts(const py::list& list) : texts_(list) {
    items_.reserve(texts_.size());
    for (const py::handle item : texts_) {
      if (PyBytes_Check(item.ptr())) {
        add_bytes(item, false);
      } else if (PyUnicode_Check(item.ptr())) {
        Py_ssize_t size = 0;
        const bool is_ascii = PyUnicode_IS_ASCII(item.ptr());
        if (const char* utf8 = PyUnicode_AsUTF8AndSize(item.ptr(), &size)) {
          items_.push_back({{utf8, static_cast<std::size_t>(size)}, !is_ascii});
          continue;
        }
        PyErr_Clear();
        owned_.push_back(item.attr("encode")("utf-8", "surrogatepass"));
        add_bytes(owned_.back(), true);
      } else {
        throw py::type_error("texts must be str or bytes, item " + std::to_string(items_.size()) + " is " +
                             std::string(py::str(py::type::of(item).attr("__name__"))));
      }
    }
  }

  std::string_view operator[](std::int64_t i) const { return item(i).text; }
  // Whether characters of the text are not its bytes.
  bool is_wide(std::int64_t i) const { return item(i).is_wide; }
  std::int64_t size() const { return static_cast<std::int64_t>(items_.size()); }

 private:
  struct Item {
    std::string_view text;
    bool is_wide;
  };

  const Item& item(std::int64_t i) const { return items_[static_cast<std::size_t>(i)]; }
  void add_bytes(const py::handle& bytes, bool is_wide) {
    const auto size = static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()));
    items_.push_back({{PyBytes_AS_STRING(bytes.ptr()), size}, is_wide});
  }

  py::tuple texts_;
  std::vector<Item> items_;
  std::vector<py::object> owned_;
};

inline std::int64_t completions_per_problem(std::int64_t problems, std::int64_t completions,
                                            const std::string& what = "problems") {
  if (problems == 0 ? completions != 0 : completions % problems != 0)
    throw py::value_error("completions must hold the same number for each problem, one problem after the other; got " +
                          std::to_string(completions) + " completions for " + std::to_string(problems) + " " + what);
  return problems == 0 ? 0 : completions / problems;
}

}  // namespace fastreason
