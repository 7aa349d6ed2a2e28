// Draws problem graphs by the law of the GSM-Infinite generator as released with arXiv 2512.07783.
//
// The law is that of rejection: an attempt draws sizes, a bipartite structure graph, the necessary graph in three
// stages and the numbers; it is accepted when the problem has the wanted op and admissible values. Everything that
// acceptance does not depend on (distractors, names, order of sentences) is drawn after it. docs/tasks.md states each
// step and the known oddities of the original that are kept.
#pragma once

#include <cstdint>
#include <vector>

#include "common/philox.h"
#include "tasks/problem.h"

namespace fastreason {

inline constexpr int kMinOp = 2;
inline constexpr int kMaxOp = 20;

// What the accepted problems must look like: one cell of a mixture, without its theme.
struct ProblemSpec {
  int op = 2;
  Mode mode = Mode::kForward;
  int depth = 2;
  int number_range = 5;               // constants lie in 1 .. number_range - 1
  std::int64_t max_value = 1000;      // of every necessary quantity
  int max_sentences = 2 * kMaxEdges;  // of the problem text, the told sentence of reverse mode not counted
};

// The size knob s of the released schedule; problems of one op drawn with another s have another law.
int schedule_size(int op);

class ProblemSampler {
 public:
  explicit ProblemSampler(const ProblemSpec& spec);

  // One attempt. True: `problem` has graph, formulas and values of its necessary part. False: it holds garbage.
  bool attempt(Rng& rng, Problem& problem);

  // Completes an accepted problem: distractors, their formulas, and the order of the sentences.
  void finish(Rng& rng, Problem& problem);

 private:
  struct Sizes {
    int budget_n, budget_m;  // operations aimed at by totals alone, and with extra instances
    int width_low, width_high;
    int edges;
  };

  bool draw_sizes(Rng& rng, Sizes& sizes);
  bool draw_structure(Rng& rng, const Sizes& sizes, Problem& problem);
  void reset_nodes(Problem& problem);
  void choose_members(Rng& rng, const Sizes& sizes, Problem& problem);
  bool order_members(Rng& rng, Problem& problem);
  void extend_pair(Rng& rng, Problem& problem);
  bool draw_parents(Rng& rng, Problem& problem);
  bool assign_values(Rng& rng, Problem& problem);
  bool target_is_linear(const Problem& problem) const;

  int abstract_cost(const Problem& problem, NodeId abstract) const;
  void add_abstract(Problem& problem, NodeId abstract);
  void add_parent(Problem& problem, NodeId child, NodeId parent);
  void draw_formula(Rng& rng, Problem& problem, NodeId node);
  NodeId choose_biased(Rng& rng, const NodeSet& candidates, const NodeSet& wanted_by_topo);
  void draw_distractor_parents(Rng& rng, Problem& problem, NodeId node, const SmallVector<NodeId, 160>& pool);

  ProblemSpec spec_;
  int size_;  // s
  Table<std::uint32_t, 4> width_threshold_;

  // Scratch of the attempt in progress.
  Table<NodeSet, kNumNodes> parent_sets_;
  SmallVector<NodeId, 2 * kMaxEdges> instances_;  // every instance of the structure, in list order
  SmallVector<NodeId, kNumNodes> abstracts_;      // members that are abstracts, in order of insertion
  SmallVector<NodeId, kMaxEdges + kMaxPlaces> level1_;
  SmallVector<NodeId, kMaxPlaces> level2_;
};

}  // namespace fastreason
