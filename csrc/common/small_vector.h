// Containers of fixed capacity without allocation, indexed by int, for the few nodes of one problem.
#pragma once

#include <array>
#include <cassert>
#include <cstdint>

namespace fastreason {

// std::array with an int index.
template <class T, int Size>
struct Table {
  T& operator[](int i) { return items[static_cast<std::size_t>(i)]; }
  const T& operator[](int i) const { return items[static_cast<std::size_t>(i)]; }
  std::array<T, Size> items;
};

template <class T, int Capacity>
class SmallVector {
 public:
  void push_back(T value) {
    assert(size_ < Capacity);
    items_[static_cast<std::size_t>(size_++)] = value;
  }
  void insert(int at, T value) {
    assert(size_ < Capacity && at >= 0 && at <= size_);
    for (int i = size_++; i > at; --i) (*this)[i] = (*this)[i - 1];
    (*this)[at] = value;
  }
  void erase(int at) {
    for (int i = at; i + 1 < size_; ++i) (*this)[i] = (*this)[i + 1];
    --size_;
  }
  // Removes an item without keeping the order of the rest.
  void swap_erase(int at) {
    (*this)[at] = (*this)[size_ - 1];
    --size_;
  }
  void clear() { size_ = 0; }
  bool contains(T value) const {
    for (const T item : *this)
      if (item == value) return true;
    return false;
  }

  int size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](int i) { return items_[static_cast<std::size_t>(i)]; }
  const T& operator[](int i) const { return items_[static_cast<std::size_t>(i)]; }
  T& back() { return (*this)[size_ - 1]; }
  const T& back() const { return (*this)[size_ - 1]; }
  T* begin() { return items_.data(); }
  T* end() { return items_.data() + size_; }
  const T* begin() const { return items_.data(); }
  const T* end() const { return items_.data() + size_; }

 private:
  int size_ = 0;
  std::array<T, Capacity> items_;
};

}  // namespace fastreason
