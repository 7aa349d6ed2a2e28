// Compares a predicted trace with the gold one, step by step.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "grade/gold_trace.h"
#include "grade/published_reader.h"
#include "grade/symbolic_reader.h"
#include "tasks/theme.h"

namespace fastreason {

// What the verifier says of a step. Where several things are wrong: repeated or extra, undefined variable, wrong
// parents, unreadable, wrong operator, arithmetic slip, wrong value, in this order.
enum class StepStatus : std::uint8_t {
  kRight,
  kWrongValue,         // defined as in the gold solution and carried out as printed, but from a wrong value
  kWrongParents,       // its set of parents differs from the gold one
  kWrongOperator,      // the same parents, but another operator, constant or order of operands
  kArithmeticSlip,     // an equality that does not hold
  kUndefinedVariable,  // it uses a name that nothing before it defines
  kRepeated,           // a later step has the same name; that one counts
  kExtra,              // no gold step has this name
  kUnreadable,         // an equality that cannot be read, as where a number is none, or its value given twice or never
};

struct StepVerdict {
  StepStatus status;
  bool correct;              // its name, parents and value are those of a gold step, and it counts
  std::int32_t gold_step;    // index of the gold step of the same name, -1: none
  std::uint64_t name;        // a hash of it
  double value;              // not a number: none
  std::uint32_t begin, end;  // bytes of the completion
};

struct Verdict {
  Ending ending = Ending::kNoAnswer;
  bool answer_correct = false;    // the completion ends with one closed answer, which is the gold answer
  bool verified = false;          // so it is, and every gold step is correct
  bool sound = false;             // verified, and nothing that is printed is wrong
  float process_accuracy = 0.0f;  // share of gold steps that are correct
  double answer = 0.0;            // as it was read; not a number: none
  std::int32_t num_missing = 0;   // gold steps without a step of their name
  std::uint32_t num_steps = 0;
};

inline bool has_right_ending(const Answer& answer) { return answer.ending == Ending::kClosed && answer.is_number; }

// Grades completions of one problem at a time against its gold solution. Keeps its memory; one per thread.
class Grader {
 public:
  // Views of `solution` are kept until the next call.
  void set_gold(std::string_view solution, Style style);
  // The same without a text. Names are views into the theme.
  void set_gold(const SolutionGraph& solution, const Theme& theme);

  const Trace& gold() const { return gold_; }
  const NameTable& names() const { return names_; }
  // Steps of the gold solution.
  std::size_t num_gold_steps() const { return gold_.steps.size(); }

  // Not a number: the gold solution does not end with one.
  double gold_answer() const { return has_right_ending(gold_.answer) ? gold_.answer.value : Quantity::kNone; }
  // Whether it has an answer, and steps that all have a value. If not, no completion is verified.
  bool gold_is_readable() const { return gold_is_readable_; }

  // Appends the verdicts of the predicted steps to `steps`, and to `found` for every gold step the index among the
  // predicted steps of the one with its name, -1 where there is none.
  Verdict grade(std::string_view completion, TextEnd end, std::vector<StepVerdict>& steps,
                std::vector<std::int32_t>& found);

 private:
  void index_gold();
  StepVerdict judge(std::size_t i, bool& sound) const;
  StepStatus fault(const Step& step, const Step& gold, bool same_parents, bool same_value) const;
  bool same_parents(const Step& predicted, const Step& gold) const;

  Style style_ = Style::kPublished;
  PublishedReader published_, published_gold_;
  SymbolicReader symbolic_;
  NameTable names_;
  Trace gold_, predicted_;
  bool gold_is_readable_ = false;
  int num_gold_names_ = 0;
  std::vector<int> gold_step_of_name_;  // by name id; the last definition counts
  std::vector<int> last_step_of_name_;  // of the prediction, by name id
};

}  // namespace fastreason
