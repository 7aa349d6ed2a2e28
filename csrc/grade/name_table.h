// Names as small integers, so that steps and parents compare as numbers.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/hash.h"

namespace fastreason {

// Holds views: the texts must outlive their entries.
class NameTable {
 public:
  NameTable() : slots_(64, -1) {}

  int size() const { return static_cast<int>(names_.size()); }
  std::string_view name(int id) const { return names_[static_cast<std::size_t>(id)]; }

  // The id of `name`, or -1.
  int find(std::string_view name) const { return slots_[slot_of(name)]; }

  int intern(std::string_view name) {
    const std::size_t slot = slot_of(name);
    if (slots_[slot] >= 0) return slots_[slot];
    const int id = size();
    names_.push_back(name);
    slots_[slot] = id;
    if (2 * names_.size() > slots_.size()) grow();
    return id;
  }

  void clear() {
    names_.clear();
    slots_.assign(slots_.size(), -1);
  }

  // Forgets the names with ids `size` and above. Undoing insertions in reverse keeps linear probing intact.
  void truncate(int size) {
    while (this->size() > size) {
      slots_[slot_of(names_.back())] = -1;
      names_.pop_back();
    }
  }

 private:
  std::size_t slot_of(std::string_view name) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t slot = hash_bytes(name) & mask;
    while (slots_[slot] >= 0 && names_[static_cast<std::size_t>(slots_[slot])] != name) slot = (slot + 1) & mask;
    return slot;
  }

  void grow() {
    slots_.assign(2 * slots_.size(), -1);
    for (int id = 0; id < size(); ++id) slots_[slot_of(name(id))] = id;
  }

  std::vector<std::string_view> names_;
  std::vector<int> slots_;  // open addressing, -1 is free
};

}  // namespace fastreason
