// A fixed number of items in memory that nobody has written yet, so that the threads which fill it touch it first.
#pragma once

#include <cstddef>
#include <memory>

namespace fastreason {

template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(std::size_t size) : items_(std::make_unique_for_overwrite<T[]>(size)), size_(size) {}

  T& operator[](std::size_t i) { return items_[i]; }
  const T& operator[](std::size_t i) const { return items_[i]; }
  T* data() { return items_.get(); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  std::unique_ptr<T[]> items_;
  std::size_t size_ = 0;
};

}  // namespace fastreason
