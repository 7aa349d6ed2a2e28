// What a solution says, read from text: steps with name, parents and value, and the answer.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "grade/name_table.h"

namespace fastreason {

struct Step {
  int name = 0;  // id in the NameTable
  bool has_value = false;
  double value = 0.0;
  std::uint32_t parents_begin = 0, parents_end = 0;  // into Trace::parents
  std::uint32_t begin = 0, end = 0;                  // bytes of the text
};

struct Trace {
  std::vector<Step> steps;   // in order of the text; a name may occur more than once
  std::vector<int> parents;  // name ids, sorted and without repeats within a step
  bool has_answer = false;
  double answer = 0.0;

  void clear() {
    steps.clear();
    parents.clear();
    has_answer = false;
    answer = 0.0;
  }
};

// The first `<answer>` (any case) that a number follows, else the first `Answer:` that one follows.
bool find_answer(std::string_view text, double& answer);

}  // namespace fastreason
