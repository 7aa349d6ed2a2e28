// A set of characters: sorted ranges of code points, with a bitmap for those that text mostly holds.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "text/utf8.h"

namespace fastreason {

class CharSet {
 public:
  CharSet() = default;

  void add(std::uint32_t first, std::uint32_t last) { ranges_.emplace_back(first, last); }
  void add(const CharSet& other) { ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end()); }

  // Everything else, invalid bytes included.
  CharSet complement() const {
    CharSet out;
    std::uint32_t next = 0;
    for (const auto& [first, last] : sorted().ranges_) {
      if (first > next) out.add(next, first - 1);
      next = last + 1;
    }
    if (next <= kInvalidByte) out.add(next, kInvalidByte);
    return out;
  }

  // The same set, ready for `contains`: ranges in order and apart, bitmap filled.
  CharSet sorted() const {
    CharSet out;
    auto ranges = ranges_;
    std::sort(ranges.begin(), ranges.end());
    for (const auto& [first, last] : ranges) {
      if (!out.ranges_.empty() && first <= out.ranges_.back().second + 1)
        out.ranges_.back().second = std::max(out.ranges_.back().second, last);
      else
        out.add(first, last);
    }
    for (const auto& [first, last] : out.ranges_)
      for (std::size_t code = first; code <= last && code < kBitmap; ++code) out.bitmap_.set(code);
    return out;
  }

  bool contains(std::uint32_t code) const {
    if (code < kBitmap) return bitmap_[code];
    const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), code,
                                        [](std::uint32_t value, const auto& range) { return value < range.first; });
    return after != ranges_.begin() && code <= std::prev(after)->second;
  }

  // Of sorted sets.
  bool meets(const CharSet& other) const {
    auto mine = ranges_.begin(), theirs = other.ranges_.begin();
    while (mine != ranges_.end() && theirs != other.ranges_.end()) {
      if (mine->first <= theirs->second && theirs->first <= mine->second) return true;
      mine->second < theirs->second ? ++mine : ++theirs;
    }
    return false;
  }
  bool holds_any_from(std::uint32_t code) const { return !ranges_.empty() && ranges_.back().second >= code; }

 private:
  static constexpr std::size_t kBitmap = 0x800;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges_;
  std::bitset<kBitmap> bitmap_;
};

}  // namespace fastreason
