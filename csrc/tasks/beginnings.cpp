#include "tasks/beginnings.h"

#include <algorithm>
#include <bit>

#include "tasks/draft.h"
#include "tasks/schedule.h"

namespace fastreason {

namespace {

// P(extras | n): m is uniform in n .. s, and max(0, m - k - 1) extras are taken, or all that are available.
double extras_probability(int size, int n, int taken, int available, int extras) {
  int low = taken + 1 + extras, high = low;
  if (extras == 0) low = n;
  if (extras == available) high = size;
  const int count = std::min(high, size) - std::max(low, n) + 1;
  return count > 0 ? static_cast<double>(count) / (size - n + 1) : 0.0;
}

// Whether a set of places is the first of those that are alike: among equal degrees it holds the front ones.
bool is_canonical(const Structure& structure, unsigned chosen) {
  for (std::size_t p = 1; p < static_cast<std::size_t>(structure.num_places); ++p)
    if (structure.degrees[p] == structure.degrees[p - 1] && (chosen >> p & 1) != 0 && (chosen >> (p - 1) & 1) == 0)
      return false;
  return true;
}

// How many sets of places have the same degrees as this one, out of how many of its size.
double share_of_alike(const Structure& structure, unsigned chosen) {
  double alike = 1.0, all = 1.0;
  int run = 0, in_run = 0, in_all = 0;
  for (int p = 0; p < structure.num_places; ++p) {
    const auto at = static_cast<std::size_t>(p);
    if (p > 0 && structure.degrees[at] != structure.degrees[at - 1]) run = in_run = 0;
    // binomial coefficients, built up one place at a time: C(run, in_run)
    const bool taken = (chosen >> p & 1) != 0;
    ++run;
    if (taken) ++in_run, ++in_all;
    alike *= taken ? static_cast<double>(run) / in_run : static_cast<double>(run) / (run - in_run);
    all *= taken ? static_cast<double>(p + 1) / in_all : static_cast<double>(p + 1) / (p + 1 - in_all);
  }
  return alike / all;
}

}  // namespace

double stage1_probability(int size, int taken, int available, int extras, int refused) {
  const int most = refused == 0 ? size : std::min(size, taken + refused - 1);
  double probability = 0.0;
  for (int n = std::max(1, taken); n <= most; ++n)  // n is the larger of two uniform draws
    probability += (2.0 * n - 1.0) / (size * size) * extras_probability(size, n, taken, available, extras);
  return probability;
}

Beginnings::Beginnings(const ProblemSpec& spec) : size_(schedule_size(spec.op)) {
  const std::vector<double> probabilities = structure_probabilities(size_, spec.mode, spec.depth);
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    const int sentences = all_structures()[i].num_edges * (spec.depth - 1);
    if (probabilities[i] == 0.0 || sentences > spec.max_sentences) continue;
    if (spec.depth == 3)
      add({static_cast<std::uint16_t>(i), 0, 0}, probabilities[i]);
    else
      add_depth2(i, probabilities[i], spec);
  }
  if (!weights_.empty()) table_ = AliasTable(weights_);
}

void Beginnings::add(const Beginning& beginning, double probability) {
  beginnings_.push_back(beginning);
  weights_.push_back(probability);
  mass_ += probability;
}

void Beginnings::add_depth2(std::size_t index, double probability, const ProblemSpec& spec) {
  const Structure& structure = all_structures()[index];
  const int places = structure.num_places;
  for (unsigned chosen = 0; chosen < 1u << places; ++chosen) {
    if (!is_canonical(structure, chosen)) continue;
    int taken = 0;
    for (int p = 0; p < places; ++p)
      if ((chosen >> p & 1) != 0) taken += structure.degrees[static_cast<std::size_t>(p)];
    if (taken > size_) continue;
    const int totals = std::popcount(chosen), left = places - totals;
    const int available = structure.num_edges - taken;
    for (int extras = 0; extras <= std::min(available, size_); ++extras) {
      const int instances = taken + extras;
      if (instances == 0) continue;  // an empty graph is no problem
      const bool extendable = instances + totals == 2 && instances < structure.num_edges;
      if (!reachable_ops(size_, instances, totals, 0, taken, extendable).contains(spec.op)) continue;
      double ends = left == 0 ? stage1_probability(size_, taken, available, extras, 0) : 0.0;
      for (int p = 0; p < places; ++p)  // the place refused is any of the others
        if ((chosen >> p & 1) == 0)
          ends += stage1_probability(size_, taken, available, extras, structure.degrees[static_cast<std::size_t>(p)]) /
                  left;
      if (ends > 0.0)
        add({static_cast<std::uint16_t>(index), static_cast<std::uint8_t>(chosen), static_cast<std::uint8_t>(extras)},
            probability * ends * share_of_alike(structure, chosen));
    }
  }
}

}  // namespace fastreason
