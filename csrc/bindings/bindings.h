// Shared by the binding files: a binding converts, checks and releases the GIL; it decides nothing.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/array.h"
#include "common/interrupt.h"

namespace fastreason {

namespace py = pybind11;

void bind_tasks(py::module_& m);
void bind_text(py::module_& m);
void bind_grade(py::module_& m);
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

// An array of integers as an argument: any integer dtype or a list of integers, whose values fit into T. Floats, bools
// and values that do not fit are refused, never cast. Names of arguments are for who calls from Python to give.
template <class T>
struct InputArray {
  py::array_t<T, py::array::c_style | py::array::forcecast> array;

  const T* data() const { return array.data(); }
  py::ssize_t size() const { return array.size(); }
  py::ssize_t ndim() const { return array.ndim(); }
  py::ssize_t shape(py::ssize_t axis) const { return array.shape(axis); }
};

template <class T>
std::vector<T> copy_of(const InputArray<T>& array) {
  return {array.data(), array.data() + array.size()};
}

// Runs the handlers of signals that have come; true where one raised, and Python's error is set. For the main thread:
// handlers run nowhere else.
inline bool signal_raises() {
  const py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

// Does long work without the GIL. A signal whose handler raises, such as Ctrl-C, ends it at its next interruption
// point; Interrupted is then the exception that the handler raised (module.cpp).
template <class Work>
auto without_gil(Work&& work) {
  const py::gil_scoped_release release;
  std::atomic<bool> stop{false};
  const Interruptible scope(&stop, &signal_raises);
  return work();
}

// In loops that keep the GIL because they make Python objects.
class SignalCounter {
 public:
  void operator()() {
    if ((++turns_ & 4095) == 0 && PyErr_CheckSignals() != 0) throw py::error_already_set();
  }

 private:
  std::uint32_t turns_ = 0;
};

}  // namespace fastreason

namespace pybind11::detail {

template <class T>
struct type_caster<fastreason::InputArray<T>> {
  PYBIND11_TYPE_CASTER(fastreason::InputArray<T>, const_name("numpy.typing.ArrayLike"));

  bool load(handle source, bool) {
    const auto any = array::ensure(source);
    if (!any) {
      PyErr_Clear();
      return false;
    }
    const char kind = any.dtype().kind();
    // an empty list has the dtype of floats
    if (kind != 'i' && kind != 'u' && any.size() > 0) return false;
    value.array = any;  // cast
    const bool may_not_fit = any.itemsize() > static_cast<ssize_t>(sizeof(T)) ||
                             (any.itemsize() == static_cast<ssize_t>(sizeof(T)) && kind == 'u');
    return !may_not_fit || any.attr("__eq__")(value.array).attr("all")().template cast<bool>();
  }
};

}  // namespace pybind11::detail
