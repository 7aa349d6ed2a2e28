// The necessary graph of an attempt in progress. Its members are numbered from 0 in the order in which they came in, so
// that a set of them is one machine word.
#pragma once

#include <bit>
#include <cstdint>

#include "common/philox.h"
#include "tasks/problem.h"

namespace fastreason {

// Stage 1 takes abstracts of s operations in all, each of which brings in at most two members an operation, or else
// fills up with instances to s - 1; one more member may come in later.
inline constexpr int kMaxMembers = 64;
inline constexpr int kMaxSize = 31;  // of s, so that all members fit

using Mask = std::uint64_t;

constexpr Mask bit(int member) { return Mask{1} << member; }

// The member of a non-empty mask with `rank` smaller ones.
inline int nth_member(Mask mask, int rank) {
  for (; rank > 0; --rank) mask &= mask - 1;
  return std::countr_zero(mask);
}

template <class Random>
int uniform_member(Random& rng, Mask mask) {
  const int size = std::popcount(mask);
  return nth_member(mask, size == 1 ? 0 : rng.below(size));
}

template <class Body>
void for_each_member(Mask mask, Body&& body) {
  for (; mask != 0; mask &= mask - 1) body(std::countr_zero(mask));
}

struct Draft {
  struct Instance {
    SmallVector<std::uint8_t, 5> parents;  // in the order in which the texts name them
    std::int8_t forced = -1;               // the parent that stage 2 gave it
    Formula formula;
  };

  int size = 0;
  Mask abstracts = 0;
  int num_specials = 0;
  int abstract_edges = 0;  // edges into abstracts, those of specials included

  Table<NodeId, kMaxMembers> node;  // kNoNode: a count whose place is still to be drawn
  Table<Mask, kMaxMembers> parts;   // of abstracts: their parents
  Table<Instance, kMaxMembers> instance;
  Table<std::uint8_t, kMaxMembers> topo;  // parents first
  Table<std::int64_t, kMaxMembers> value;
  int unknown = -1;
  int op = 0;

  void clear() {
    size = num_specials = abstract_edges = 0;
    abstracts = 0;
  }
  Mask all() const { return size == kMaxMembers ? ~Mask{0} : bit(size) - 1; }
  bool is_abstract(int member) const { return (abstracts >> member & 1) != 0; }
  int num_instances() const { return size - std::popcount(abstracts); }

  int add_instance(NodeId id) {
    node[size] = id;
    parts[size] = 0;
    instance[size] = {};
    return size++;
  }
  int add_abstract(NodeId id) {
    node[size] = id;
    abstracts |= bit(size);
    if (is_special(id)) ++num_specials;
    return size++;
  }
  void set_parts(int member, Mask mask) {
    parts[member] = mask;
    abstract_edges += std::popcount(mask);
  }

  // Calls body(count, special) for every product that an average total sums.
  template <class Body>
  void for_each_product(int member, Body&& body) const {
    for_each_member(parts[member] & abstracts, [&](int special) {
      const NodeId wanted = count_node(place_of(node[special]), kind_of(node[special]));
      for_each_member(parts[member] & ~abstracts, [&](int count) {
        if (node[count] == wanted) body(count, special);
      });
    });
  }

  // Whether the target is a * x + b with a != 0, x the value of the unknown; squares are refused wherever they occur.
  bool target_is_linear() const;
};

// Bounds of op that hold for every problem that members of these numbers can still become; they serve to give up early.
struct OpRange {
  int low = 1, high = 0;  // both included; empty
  bool contains(int op) const { return low <= op && op <= high; }
};

// `size` is s; `abstract_edges` counts the edges of specials too; `extendable`: another instance could still join.
OpRange reachable_ops(int size, int num_instances, int num_abstracts, int num_specials, int abstract_edges,
                      bool extendable);

}  // namespace fastreason
