// The steps of a problem's solution in the order of its text, without the text: for comparing solutions with it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tasks/problem.h"
#include "tasks/theme.h"

namespace fastreason {

// One step. Its value follows from its parents as Formula says, or, of `products`, as the sum of parents[0] *
// parents[1]
// + parents[2] * parents[3] ...
struct SolutionStep {
  std::int64_t value;
  std::int32_t name;  // piece of the theme
  std::uint32_t parents_begin;
  std::uint8_t num_parents;
  bool products;
  bool unknown;  // of a reverse problem: it has no definition
  Formula formula;
};

struct SolutionGraph {
  std::span<const SolutionStep> steps;  // in the order of the text
  const std::uint8_t* parents;          // numbers of steps, in the order of their expressions
  std::int64_t answer;
  Mode mode;  // of a reverse problem the value of the last step is told
};

// Appends the steps of a problem; `parents_begin` counts from the first of `parents` that it appends.
void append_solution_steps(const Theme& theme, const Problem& problem, std::vector<SolutionStep>& steps,
                           std::vector<std::uint8_t>& parents);

}  // namespace fastreason
