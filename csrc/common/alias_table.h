// Draws from a finite distribution in constant time: Walker 1977, in the form of Vose 1991.
#pragma once

#include <cstdint>
#include <vector>

#include "common/philox.h"

namespace fastreason {

class AliasTable {
 public:
  AliasTable() = default;

  // Probability of i: weights[i] / sum, to within 2**-32 / size. Weights are >= 0, and one is positive.
  explicit AliasTable(const std::vector<double>& weights) : bins_(weights.size()) {
    double total = 0.0;
    for (const double weight : weights) total += weight;
    std::vector<double> scaled;
    std::vector<std::uint32_t> small, large;
    for (const double weight : weights) {
      scaled.push_back(weight / total * static_cast<double>(weights.size()));
      (scaled.back() < 1.0 ? small : large).push_back(static_cast<std::uint32_t>(scaled.size() - 1));
    }
    while (!small.empty() && !large.empty()) {
      const std::uint32_t poor = small.back(), rich = large.back();
      small.pop_back();
      bins_[poor] = {static_cast<std::uint32_t>(scaled[poor] * 0x1p32), rich};
      scaled[rich] -= 1.0 - scaled[poor];
      if (scaled[rich] < 1.0) {
        large.pop_back();
        small.push_back(rich);
      }
    }
    for (const auto* rest : {&small, &large})
      for (const std::uint32_t i : *rest) bins_[i] = {~std::uint32_t{0}, i};
  }

  bool empty() const { return bins_.empty(); }

  std::uint32_t draw(Rng& rng) const {
    const auto bin = static_cast<std::uint32_t>(rng.below(static_cast<int>(bins_.size())));
    const Bin& found = bins_[bin];
    return rng.next() < found.threshold ? bin : found.other;
  }

 private:
  struct Bin {
    std::uint32_t threshold, other;
  };
  std::vector<Bin> bins_;
};

}  // namespace fastreason
