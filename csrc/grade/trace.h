// What a solution says, read from text: steps with name, parents, definition and value, the solved equation, the
// answer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "grade/answer.h"
#include "grade/expression.h"

namespace fastreason {

struct Step {
  int name = 0;  // id in the NameTable
  bool has_value = false;
  bool undefined = false;                            // its definition uses a name that nothing before it defines
  bool slip = false;                                 // one of its printed equalities does not hold
  bool unreadable = false;                           // one of them cannot be read, or its own one is not given once
  double value = 0.0;                                // with x put at the answer
  std::uint64_t shape = 0;                           // hash of its definition
  std::uint32_t parents_begin = 0, parents_end = 0;  // into Trace::parents
  std::uint32_t begin = 0, end = 0;                  // bytes of the text
};

// "We know T = 7, so we have 2*x + 3 = 7 ...": the equation that ends the solution of a reverse problem.
struct Equation {
  bool present = false;
  bool exact = false;  // every line of its solution follows from the one before, and the answer is its solution
  int target = 0;      // name of the told quantity
  double told = 0.0;
};

struct Trace {
  std::vector<Step> steps;   // in order of the text; a name may occur more than once
  std::vector<int> parents;  // name ids, sorted and without repeats within a step
  Answer answer;
  bool stray = false;  // an equality stands where no step is
  Equation equation;

  void clear() {
    steps.clear();
    parents.clear();
    stray = false;
    answer = {};
    equation = {};
  }

  // The parents added since `step.parents_begin` become its set.
  void finish_parents(Step& step) {
    const auto first = parents.begin() + step.parents_begin;
    std::sort(first, parents.end());
    parents.erase(std::unique(first, parents.end()), parents.end());
    step.parents_end = static_cast<std::uint32_t>(parents.size());
  }
};

}  // namespace fastreason
