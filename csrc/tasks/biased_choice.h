// The biased choice of the original generator, as a table.
//
// Candidate y is chosen with probability proportional to exp(b_y |g_y|): b_y in 0, 1, 2, and g_y a standard normal of
// its own. Candidates of one bias are alike, so only the probability of each bias has to be known: with w = exp(b |g|),
//     P(bias b) = n_b E[w_b / sum of all w] = n_b integral_0^inf E[w_b e^(-t w_b)] prod_c E[e^(-t w_c)]^(n_c - [c = b])
//     dt
#pragma once

#include <array>
#include <cstdint>

#include "common/philox.h"
#include "tasks/choice_tree.h"

namespace fastreason {

inline constexpr int kMaxTabulated = 24;

// The bias drawn for counts[b] candidates of bias b; their sum is >= 1.
int draw_bias(Rng& rng, const std::array<int, 3>& counts);
// Their sum is at most kMaxTabulated.
int draw_bias(ChoiceTree& tree, const std::array<int, 3>& counts);

// Probability of each bias, to about 1e-12; the sum of counts is in 1 .. kMaxTabulated.
std::array<double, 3> bias_probabilities(const std::array<int, 3>& counts);

}  // namespace fastreason
