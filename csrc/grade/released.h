// The scorer as released with arXiv 2512.07783, defects included: the scores of its evaluation and of its reward.
//
// It agrees with that program on any text, in linear time, except where
// - an expression holds a power or an integer of 2**1024 or more: refused, so the last number written counts;
// - an expression holds some thousand operators, at which Python gives up: computed;
// - a text holds bytes that are no UTF-8, or a lone surrogate: read as U+FFFD, one for each byte;
// - a character is younger than the Unicode of the Python that runs the program.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "grade/name_table.h"
#include "grade/released_reader.h"

namespace fastreason {

struct ReleasedVerdict {
  bool verified = false;          // no gold step is missing or wrong, and the answers are equal
  bool outcome = false;           // the answers are equal as strings
  bool answer_mismatch = false;   // the answers differ as numbers, or only one of the texts has one
  float process_accuracy = 0.0f;  // share of gold steps that are right; 1 of no steps
  double process_reward = 0.0;    // max(0, 1 - penalty / max(1, num_gold)); the outcome if the gold text is blank
  int penalty = 0;                // missing + wrong values + wrong parents + min(extra, max(1, num_gold)) + mismatch
  int num_gold = 0, num_predicted = 0;  // names with a step
  int num_missing = 0, num_extra = 0, num_wrong_value = 0, num_wrong_parents = 0;
  bool has_answer = false;
  double answer = 0.0;  // of the completion
};

// Names in order of their bytes.
struct ReleasedDetail {
  std::vector<std::string> missing, extra, wrong_value, wrong_parents;
};

// Scores completions of one problem at a time against its gold solution. Keeps its memory; one per thread.
class ReleasedScorer {
 public:
  // Views of `solution` are kept until the next call.
  void set_gold(std::string_view solution);

  ReleasedVerdict score(std::string_view completion, ReleasedDetail* detail = nullptr);

 private:
  void compare_steps(ReleasedVerdict& verdict, ReleasedDetail* detail);

  NameTable names_;
  ReleasedReader gold_, predicted_;
  std::string_view gold_answer_;
  int num_gold_names_ = 0;
  std::vector<int> gold_step_of_name_, predicted_step_of_name_;  // by name id: the last definition; -1: none
};

}  // namespace fastreason
