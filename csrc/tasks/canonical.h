// The identity of a problem: its content, regardless of order.
#pragma once

#include <cstdint>

#include "tasks/draft.h"
#include "tasks/problem.h"
#include "tasks/theme.h"

namespace fastreason {

// 64-bit hash of the canonical problem: the set of its sentences, operands of a sum unordered, and the question. Two
// problems with the same hash differ at most in the order of sentences and summands and in the letters of the solution.
std::uint64_t canonical_hash(const Theme& theme, const Problem& problem);

// 64-bit hash of the necessary graph without names and numbers: which sorts of quantities there are, how each follows
// from which others (sum, difference, constant added or multiplied), and which is the target. Graphs that differ in
// the order of nodes or summands alone have the same hash; so have a problem told forwards and in reverse.
std::uint64_t graph_hash(const Draft& draft);

}  // namespace fastreason
