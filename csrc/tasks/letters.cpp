#include "tasks/letters.h"

#include <algorithm>

namespace fastreason {

namespace {

constexpr int kUpperX = 'X' - 'A', kLowerX = 26 + 'x' - 'a';

}  // namespace

int count_variables(const Problem& problem, NodeId node) {
  if (is_special(node) || node == problem.unknown) return 0;
  const int parents = problem.parents[node].size();
  if (type_of(node) == NodeType::kAverageTotal) return parents / 2 + std::max(0, parents / 2 - 1);
  const bool has_constant = is_instance(node) && problem.formulas[node].has_constant;
  return std::max(1, parents - 1) + (has_constant && parents > 0 ? 1 : 0);
}

int count_variables(const Problem& problem) {
  int total = 0;
  for (const NodeId node : problem.topo) total += count_variables(problem, node);
  return total;
}

int count_letters(Mode mode) { return mode == Mode::kReverse ? 50 : 52; }

void draw_letters(Rng& rng, const Problem& problem, Letters& letters) {
  const int needed = count_variables(problem);
  SmallVector<std::uint8_t, 52> rest;
  for (int letter = 0; letter < 52; ++letter)
    if (problem.mode == Mode::kForward || (letter != kUpperX && letter != kLowerX))
      rest.push_back(static_cast<std::uint8_t>(letter));
  for (int i = 0; i < needed; ++i) {
    const int pick = rng.below(rest.size());
    letters.order[i] = rest[pick];
    rest.swap_erase(pick);
  }
}

}  // namespace fastreason
