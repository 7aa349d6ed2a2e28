// Compares a predicted trace with the gold one, step by step.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "grade/reader.h"
#include "tasks/theme.h"

namespace fastreason {

enum class StepStatus : std::uint8_t {
  kRight,         // a gold step with its parents and value
  kWrongValue,    // its parents are right, its value is not
  kWrongParents,  // its set of parents differs from the gold one
  kRepeated,      // a later step has the same name; that one counts
  kExtra,         // no gold step has this name
};

struct StepVerdict {
  StepStatus status;
  std::int16_t gold_step;    // index of the gold step of the same name, -1: none
  std::uint32_t begin, end;  // bytes of the completion
};

struct Verdict {
  bool answer_correct = false;    // the answer is the gold answer
  bool verified = false;          // so it is, and every gold step is right
  float process_accuracy = 0.0f;  // share of gold steps that are right
  std::uint32_t num_steps = 0;
};

// Grades completions of one problem at a time against its gold solution. Keeps its memory; one per thread.
class Grader {
 public:
  // Views of `solution` are kept until the next call.
  void set_gold(std::string_view solution, Style style);

  // Appends the verdicts of the predicted steps to `steps`.
  Verdict grade(std::string_view completion, std::vector<StepVerdict>& steps);

 private:
  StepStatus compare(const Step& predicted, const Step& gold) const;

  Style style_ = Style::kPublished;
  PublishedReader published_, published_gold_;
  SymbolicReader symbolic_;
  NameTable names_;
  Trace gold_, predicted_;
  int num_gold_names_ = 0;
  std::vector<int> gold_step_of_name_;  // by name id; the last definition counts
  std::vector<int> last_step_of_name_;  // of the prediction, by name id
};

}  // namespace fastreason
