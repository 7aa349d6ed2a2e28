// Draws problem graphs by the law of the GSM-Infinite generator as released with arXiv 2512.07783.
//
// The law is that of rejection: an attempt draws sizes, a bipartite structure graph, the necessary graph in three
// stages and the numbers; it is accepted when the problem has the wanted op and admissible values. Here an attempt
// begins with what the first draws amount to - the degrees of the places, at depth 2 the necessary totals too - out of
// a table that leaves out the beginnings that cannot lead to the wanted op. Everything that acceptance does not depend
// on (kinds, distractors, names, order of sentences) is drawn after it. docs/tasks.md states each step and the known
// oddities of the original that are kept.
#pragma once

#include <cstdint>

#include "common/philox.h"
#include "tasks/beginnings.h"
#include "tasks/draft.h"
#include "tasks/problem.h"
#include "tasks/structure_law.h"

namespace fastreason {

// Draws operator and constant of an instance whose formula says whether it has a constant. Random, here and below: an
// Rng, or a ChoiceTree, which goes through all outcomes.
template <class Random>
void draw_formula(Random& rng, const ProblemSpec& spec, int num_parents, Formula& formula);

class ProblemSampler {
 public:
  // One attempt at a problem of `spec`, whose `beginnings` are not empty. False if it is rejected.
  template <class Random>
  bool attempt(const ProblemSpec& spec, const Beginnings& beginnings, Random& rng) {
    return attempt_graph(spec, beginnings, rng) && assign_values(rng);
  }
  // Its two parts: a graph of the wanted op, and admissible numbers for it.
  template <class Random>
  bool attempt_graph(const ProblemSpec& spec, const Beginnings& beginnings, Random& rng);
  template <class Random>
  bool assign_values(Random& rng);

  // Completes an accepted attempt: kinds, distractors and their formulas, and the order of the sentences.
  void finish(Rng& rng, Problem& problem);

  const Draft& draft() const { return draft_; }
  // Goes back to the graph of an earlier attempt of the same spec, for assign_values alone.
  void restore(const Draft& draft) { draft_ = draft; }

 private:
  void begin_depth2(const Beginning& beginning);
  template <class Random>
  bool begin_depth3(Random& rng);
  template <class Random>
  bool order_members(Random& rng);
  template <class Random>
  int first_target(Random& rng, Mask free) const;
  template <class Random>
  int choose_biased(Random& rng, Mask candidates, Mask wanted) const;
  template <class Random>
  void extend_pair(Random& rng);
  template <class Random>
  bool draw_degrees(Random& rng);
  template <class Random>
  bool draw_parents(Random& rng);
  template <class Random>
  void draw_parents_of(Random& rng, int member, int position);

  // distractors.cpp
  // What a distractor may be explained by: the first of abstracts_, then a set of instances, then a list.
  struct DistractorPool {
    int abstracts = 0;
    NodeSet instances;
    SmallVector<NodeId, 2 * kMaxEdges> last;
  };
  void place_extras(Rng& rng);
  void drop_refused_total(Rng& rng);
  void write_problem(Problem& problem);
  void draw_distractors(Rng& rng, Problem& problem);
  void draw_distractor_parents(Rng& rng, Problem& problem, NodeId node, const DistractorPool& pool);
  bool has_circle(const Problem& problem) const;
  void add_abstract(Problem& problem, NodeId abstract);
  void add_parent(Problem& problem, NodeId child, NodeId parent);

  const ProblemSpec* spec_ = nullptr;
  int size_ = 0;  // s
  const Structure* structure_ = nullptr;
  Beginning beginning_;
  Draft draft_;
  Table<std::uint8_t, kMaxMembers> in_degree_;  // by position in topo

  // Abstracts that stage 1 has neither taken nor refused; depth 2 finds them when the problem is accepted.
  SmallVector<NodeId, kMaxEdges + kMaxPlaces> level1_;
  SmallVector<NodeId, kMaxPlaces> level2_;
  // Scratch of finish().
  SmallVector<NodeId, 2 * kMaxEdges> instances_;  // every instance of the structure
  Table<NodeSet, kNumNodes> parent_sets_;
  SmallVector<NodeId, kNumNodes> abstracts_;  // members that are abstracts
};

}  // namespace fastreason
