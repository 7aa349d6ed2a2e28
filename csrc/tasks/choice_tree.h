// Enumerates the outcomes of a finite random experiment with their probabilities.
//
//     for (ChoiceTree tree; tree.begins(); tree.next()) experiment(tree);  // draws from it as it would from an Rng
//
// A path is the list of its choices, so the memory is the depth of the deepest one.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace fastreason {

class ChoiceTree {
 public:
  // Uniform in [0, n), n >= 1.
  int below(int n) {
    probability_ /= n;
    return choose(n);
  }
  int between(int low, int high) { return low + below(high - low + 1); }
  bool coin() { return below(2) == 1; }

  // i with probability weights[i] / total, all of them positive.
  int weighted(std::span<const double> weights, double total) {
    const int choice = choose(static_cast<int>(weights.size()));
    probability_ *= weights[static_cast<std::size_t>(choice)] / total;
    return choice;
  }

  // Of what was drawn since the last next().
  double probability() const { return probability_; }

  // Whether there is a path that was not taken yet.
  bool begins() const { return !done_; }

  // Ends the path: the next one has the same choices but for the last that has another outcome left.
  void next() {
    while (!path_.empty() && path_.back().choice + 1 == path_.back().count) path_.pop_back();
    done_ = path_.empty();
    if (!done_) ++path_.back().choice;
    depth_ = 0;
    probability_ = 1.0;
  }

 private:
  struct Choice {
    int choice, count;
  };

  int choose(int count) {
    if (depth_ == path_.size()) path_.push_back({0, count});
    return path_[depth_++].choice;
  }

  std::vector<Choice> path_;
  std::size_t depth_ = 0;
  double probability_ = 1.0;
  bool done_ = false;
};

}  // namespace fastreason
