// Lists of Python texts as views of their bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/bindings.h"

namespace fastreason {

// The bytes of a list of str or bytes. A str with lone surrogates is encoded as Python's "surrogatepass" does.
class Texts {
 public:
  explicit Texts(const py::list& list) {
    views_.reserve(list.size());
    for (const py::handle item : list) {
      if (PyBytes_Check(item.ptr())) {
        views_.emplace_back(PyBytes_AS_STRING(item.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(item.ptr())));
      } else if (PyUnicode_Check(item.ptr())) {
        Py_ssize_t size = 0;
        if (const char* utf8 = PyUnicode_AsUTF8AndSize(item.ptr(), &size)) {
          views_.emplace_back(utf8, static_cast<std::size_t>(size));
          continue;
        }
        PyErr_Clear();
        owned_.push_back(item.attr("encode")("utf-8", "surrogatepass"));
        views_.emplace_back(PyBytes_AS_STRING(owned_.back().ptr()),
                            static_cast<std::size_t>(PyBytes_GET_SIZE(owned_.back().ptr())));
      } else {
        throw py::type_error("texts must be str or bytes, item " + std::to_string(views_.size()) + " is " +
                             std::string(py::str(py::type::of(item).attr("__name__"))));
      }
    }
  }
  std::string_view operator[](std::int64_t i) const { return views_[static_cast<std::size_t>(i)]; }
  std::int64_t size() const { return static_cast<std::int64_t>(views_.size()); }

 private:
  std::vector<std::string_view> views_;
  std::vector<py::object> owned_;
};

inline std::int64_t completions_per_problem(std::int64_t problems, std::int64_t completions) {
  if (problems == 0 ? completions != 0 : completions % problems != 0)
    throw py::value_error("completions must hold the same number for each problem, one problem after the other; got " +
                          std::to_string(completions) + " completions for " + std::to_string(problems) + " problems");
  return problems == 0 ? 0 : completions / problems;
}

}  // namespace fastreason
