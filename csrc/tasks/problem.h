// One problem as a graph of quantities, before any word is chosen for it.
//
// Vocabulary: a *count* C(p, t) says how many things of kind t are in place p; a place *total* A(p) sums its counts. At
// depth 3 each count also has an *average* V(p, t), an alias of it called a *special* S(p, t), and each place a second
// total B(p), the sum of count x average. Counts and averages are *instances*: each has a sentence of its own. Totals
// and specials are *abstracts*: they follow from the instances and have none.
#pragma once

#include <cstdint>

#include "common/small_vector.h"
#include "tasks/node_set.h"
#include "tasks/padding.h"

namespace fastreason {

enum class Mode : std::uint8_t { kForward, kReverse };

// How the value of an instance follows from its parents:
//   base = parent | first - second | sum of the parents;  value = base | constant + base | constant * base | constant
struct Formula {
  bool has_constant = false;
  bool times = false;  // constant * base rather than constant + base
  bool minus = false;  // exactly two parents, first - second
  std::int32_t constant = 0;
};

using ParentList = SmallVector<NodeId, 2 * kMaxKinds>;

struct Problem {
  Mode mode = Mode::kForward;
  int depth = 2;
  int op = 0;

  int num_places = 0;
  // Kind t of a node is the t-th of its place; here is which kind of the problem that is. Totals name them in order.
  Table<KindList, kMaxPlaces> kinds_of_place;

  NodeSet members;                        // every node in use: necessary or distractor
  Table<ParentList, kNumNodes> parents;   // ordered as the texts name them; constants are not parents
  Table<Formula, kNumNodes> formulas;     // of the instances
  SmallVector<NodeId, kNumNodes> topo;    // the necessary nodes, parents first; the last one is the target
  Table<std::int64_t, kNumNodes> values;  // of the nodes in topo
  NodeId unknown = kNoNode;               // reverse mode: the leaf that is asked
  SmallVector<NodeId, 2 * kMaxEdges + 1>
      sentences;  // instances in the order of the text; kToldSentence once in reverse

  Padding padding;

  Table<std::uint8_t, kMaxPlaces> place_names;  // index into the theme's places
  Table<std::uint8_t, kMaxKinds> kind_names;

  // Index into the theme's kinds of a count, an average or a special.
  int kind_name(NodeId node) const { return kind_names[kinds_of_place[place_of(node)][kind_of(node)]]; }
  NodeId target() const { return topo.back(); }
  std::int64_t answer() const { return values[mode == Mode::kReverse ? unknown : target()]; }
};

}  // namespace fastreason
