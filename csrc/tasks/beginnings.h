// How attempts at a problem begin: the beginnings that can lead to the wanted op, with exact probabilities.
#pragma once

#include <cstdint>
#include <vector>

#include "common/alias_table.h"
#include "common/philox.h"
#include "tasks/choice_tree.h"
#include "tasks/problem.h"
#include "tasks/structure_law.h"

namespace fastreason {

// What the accepted problems must look like: one cell of a mixture, without its theme.
struct ProblemSpec {
  int op = 2;
  Mode mode = Mode::kForward;
  int depth = 2;
  int number_range = 5;               // constants lie in 1 .. number_range - 1
  std::int64_t max_value = 1000;      // of every necessary quantity
  int max_sentences = 2 * kMaxEdges;  // of the problem text, the told sentence of reverse mode not counted
  bool circular = true;               // whether distractors may explain each other in a circle

  bool operator==(const ProblemSpec&) const = default;
};

// Depth 2: a structure, the places whose totals are necessary, and how many counts of other places are. Depth 3: the
// structure alone.
struct Beginning {
  std::uint16_t structure = 0;  // of all_structures()
  std::uint8_t chosen = 0;      // bit p: the total of place p
  std::uint8_t extras = 0;
};

// Built once per spec, used by all threads.
class Beginnings {
 public:
  explicit Beginnings(const ProblemSpec& spec);

  int size() const { return size_; }  // s
  bool empty() const { return beginnings_.empty(); }
  const Beginning& draw(Rng& rng) const { return beginnings_[table_.draw(rng)]; }
  const Beginning& draw(ChoiceTree& tree) const {
    return beginnings_[static_cast<std::size_t>(tree.weighted(weights_, mass_))];
  }
  // Share of the original's attempts that begin in one of these ways.
  double mass() const { return mass_; }

 private:
  void add_depth2(std::size_t index, double probability, const ProblemSpec& spec);
  void add(const Beginning& beginning, double probability);

  int size_;
  std::vector<Beginning> beginnings_;
  std::vector<double> weights_;
  AliasTable table_;
  double mass_ = 0.0;
};

// Stage 1 at depth 2 takes the totals of random places while their degrees sum to at most n; the first that does not
// fit ends it. The probability that it ends with `extras` counts of other places, given that k = `taken` operations
// were taken and that the last refused place has `refused` kinds (0: no place was left), summed over n and m.
double stage1_probability(int size, int taken, int available, int extras, int refused);

}  // namespace fastreason
