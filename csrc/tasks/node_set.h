// Quantities of a problem as small integers, and sets of them as two machine words.
#pragma once

#include <bit>
#include <cstdint>

#include "common/small_vector.h"

namespace fastreason {

inline constexpr int kMaxPlaces = 5;
inline constexpr int kMaxKinds = 5;
inline constexpr int kMaxEdges = kMaxPlaces * kMaxKinds;

using NodeId = std::uint8_t;
using KindList = SmallVector<std::uint8_t, kMaxKinds>;

enum class NodeType : std::uint8_t { kCount, kAverage, kSpecial, kTotal, kAverageTotal };

// Counts take ids 0-24 (place * 5 + t for the t-th kind of the place), averages 25-49, specials 50-74, totals 75-79,
// average totals 80-84.
inline constexpr int kNumNodes = 3 * kMaxEdges + 2 * kMaxPlaces;
inline constexpr NodeId kNoNode = 255;
inline constexpr NodeId kToldSentence = 254;

constexpr NodeId count_node(int place, int kind) { return static_cast<NodeId>(place * kMaxKinds + kind); }
constexpr NodeId average_node(int place, int kind) { return static_cast<NodeId>(kMaxEdges + place * kMaxKinds + kind); }
constexpr NodeId special_node(int place, int kind) {
  return static_cast<NodeId>(2 * kMaxEdges + place * kMaxKinds + kind);
}
constexpr NodeId total_node(int place) { return static_cast<NodeId>(3 * kMaxEdges + place); }
constexpr NodeId average_total_node(int place) { return static_cast<NodeId>(3 * kMaxEdges + kMaxPlaces + place); }

constexpr NodeType type_of(NodeId id) {
  if (id < 3 * kMaxEdges) return static_cast<NodeType>(id / kMaxEdges);
  return id < 3 * kMaxEdges + kMaxPlaces ? NodeType::kTotal : NodeType::kAverageTotal;
}
constexpr bool is_instance(NodeId id) { return id < 2 * kMaxEdges; }
constexpr bool is_special(NodeId id) { return id >= 2 * kMaxEdges && id < 3 * kMaxEdges; }
constexpr int place_of(NodeId id) {
  return id < 3 * kMaxEdges ? id % kMaxEdges / kMaxKinds : (id - 3 * kMaxEdges) % kMaxPlaces;
}
constexpr int kind_of(NodeId id) { return id % kMaxKinds; }  // of counts, averages and specials
// The average that a special is another name of.
constexpr NodeId average_of_special(NodeId id) { return static_cast<NodeId>(id - kMaxEdges); }

class NodeSet {
 public:
  void add(NodeId id) { words_[id >> 6] |= std::uint64_t{1} << (id & 63); }
  void remove(NodeId id) { words_[id >> 6] &= ~(std::uint64_t{1} << (id & 63)); }
  bool contains(NodeId id) const { return (words_[id >> 6] >> (id & 63) & 1) != 0; }
  bool empty() const { return (words_[0] | words_[1]) == 0; }
  int size() const { return std::popcount(words_[0]) + std::popcount(words_[1]); }

  NodeSet operator|(const NodeSet& other) const { return {words_[0] | other.words_[0], words_[1] | other.words_[1]}; }
  NodeSet operator&(const NodeSet& other) const { return {words_[0] & other.words_[0], words_[1] & other.words_[1]}; }
  NodeSet minus(const NodeSet& other) const { return {words_[0] & ~other.words_[0], words_[1] & ~other.words_[1]}; }

  // The member with `rank` smaller ones; 0 <= rank < size().
  NodeId nth(int rank) const {
    int word = 0;
    if (const int low = std::popcount(words_[0]); rank >= low) {
      rank -= low;
      word = 1;
    }
    std::uint64_t bits = words_[word];
    for (; rank > 0; --rank) bits &= bits - 1;
    return static_cast<NodeId>(word * 64 + std::countr_zero(bits));
  }

  template <class Body>
  void for_each(Body&& body) const {
    for (int word = 0; word < 2; ++word)
      for (std::uint64_t bits = words_[word]; bits != 0; bits &= bits - 1)
        body(static_cast<NodeId>(word * 64 + std::countr_zero(bits)));
  }

  NodeSet() = default;
  NodeSet(std::uint64_t low, std::uint64_t high) : words_{low, high} {}

 private:
  std::uint64_t words_[2] = {0, 0};
};

inline const NodeSet kInstances{(std::uint64_t{1} << (2 * kMaxEdges)) - 1, 0};

}  // namespace fastreason
