// Names as small integers, so that steps and parents compare as numbers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "common/hash.h"

namespace fastreason {

// A name's hash, the same in every table of one version of the library on one machine.
inline std::uint64_t hash_name(std::string_view name) {
  std::uint64_t state = name.size();
  const char* at = name.data();
  std::size_t left = name.size();
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    state = (state ^ word) * 0x9E3779B97F4A7C15ull;
    state ^= state >> 32;
  }
  std::uint64_t rest = 0;
  std::memcpy(&rest, at, left);
  return mix64(state ^ rest);
}

// Holds views: the texts must outlive their entries.
class NameTable {
 public:
  NameTable() : slots_(64, -1) {}

  int size() const { return static_cast<int>(entries_.size()); }
  std::string_view name(int id) const { return entry(id).name; }
  std::uint64_t hash(int id) const { return entry(id).hash; }

  // Whether the name is between " Define " and " as V;" as is_plain_step_header finds it.
  bool is_plain(int id) const { return entry(id).is_plain; }

  // The id of `name`, or -1.
  int find(std::string_view name) const { return slots_[slot_of(name, hash_name(name))]; }

  int intern(std::string_view name, bool is_plain = false) {
    const std::uint64_t hash = hash_name(name);
    const std::size_t slot = slot_of(name, hash);
    if (slots_[slot] >= 0) return slots_[slot];
    const int id = size();
    entries_.push_back({name, hash, is_plain});
    slots_[slot] = id;
    if (2 * entries_.size() > slots_.size()) grow();
    return id;
  }

  // The texts may be gone already, so no name is looked at.
  void clear() {
    entries_.clear();
    slots_.assign(std::min<std::size_t>(slots_.size(), 1024), -1);
  }

  // Forgets the names with ids `size` and above. Undoing insertions in reverse keeps linear probing intact.
  void truncate(int size) {
    while (this->size() > size) {
      slots_[slot_of(entries_.back().name, entries_.back().hash)] = -1;
      entries_.pop_back();
    }
  }

 private:
  struct Entry {
    std::string_view name;
    std::uint64_t hash;
    bool is_plain;
  };

  const Entry& entry(int id) const { return entries_[static_cast<std::size_t>(id)]; }

  std::size_t slot_of(std::string_view name, std::uint64_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t slot = hash & mask;
    while (slots_[slot] >= 0 && (entry(slots_[slot]).hash != hash || entry(slots_[slot]).name != name))
      slot = (slot + 1) & mask;
    return slot;
  }

  void grow() {
    slots_.assign(2 * slots_.size(), -1);
    for (int id = 0; id < size(); ++id) slots_[slot_of(name(id), hash(id))] = id;
  }

  std::vector<Entry> entries_;
  std::vector<int> slots_;  // open addressing, -1 is free
};

}  // namespace fastreason
