// Shared by the binding files: a binding converts, checks and releases the GIL; it decides nothing.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "common/array.h"

namespace fastreason {

namespace py = pybind11;

void bind_tasks(py::module_& m);
void bind_text(py::module_& m);
void bind_grade(py::module_& m);
void bind_released(py::module_& m);
void bind_decode(py::module_& m);
void bind_sample(py::module_& m);
void bind_cpu(py::module_& m);

// A numpy array that owns the vector's memory, without a copy.
template <class T>
py::array_t<T> to_array(std::vector<T>&& values) {
  auto* owner = new std::vector<T>(std::move(values));
  py::capsule free_when_done(owner, [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>(static_cast<py::ssize_t>(owner->size()), owner->data(), free_when_done);
}

template <class T>
py::array_t<T> to_array(Array<T>&& values) {
  auto* owner = new Array<T>(std::move(values));
  py::capsule free_when_done(owner, [](void* p) { delete static_cast<Array<T>*>(p); });
  return py::array_t<T>(static_cast<py::ssize_t>(owner->size()), owner->data(), free_when_done);
}

template <class T>
using InputArray = py::array_t<T, py::array::c_style | py::array::forcecast>;

}  // namespace fastreason
