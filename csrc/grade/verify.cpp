#include "grade/verify.h"

#include <algorithm>
#include <cmath>

namespace fastreason {

namespace {

constexpr double kTolerance = 1e-6;  // of the published measure

bool same_number(bool has_a, double a, bool has_b, double b) {
  return has_a == has_b && (!has_a || std::abs(a - b) <= kTolerance);
}

// For every name the number of its last step, -1 for names without one.
void index_steps(const Trace& trace, int num_names, std::vector<int>& last_step) {
  last_step.assign(static_cast<std::size_t>(num_names), -1);
  for (std::size_t i = 0; i < trace.steps.size(); ++i)
    last_step[static_cast<std::size_t>(trace.steps[i].name)] = static_cast<int>(i);
}

// A solved equation where the gold solution has one, about the same quantity, and right to the last line.
bool same_equation(const Equation& predicted, const Equation& gold) {
  if (predicted.present != gold.present) return false;
  return !gold.present || (predicted.exact && predicted.target == gold.target && predicted.told == gold.told);
}

}  // namespace

void Grader::set_gold(std::string_view solution, Style style) {
  style_ = style;
  names_.clear();
  if (style == Style::kSymbolic)
    symbolic_.read(solution, {}, names_, gold_);
  else
    published_gold_.read(solution, {}, names_, gold_);  // its own reader: names may point into it
  index_gold();
}

void Grader::set_gold(const SolutionGraph& solution, const Theme& theme) {
  style_ = theme.style();
  names_.clear();
  build_gold_trace(solution, theme, names_, gold_);
  index_gold();
}

void Grader::index_gold() {
  num_gold_names_ = names_.size();
  index_steps(gold_, num_gold_names_, gold_step_of_name_);
  const auto has_value = [](const Step& step) { return step.has_value; };
  gold_is_readable_ = num_gold_names_ > 0 && has_right_ending(gold_.answer) &&
                      std::all_of(gold_.steps.begin(), gold_.steps.end(), has_value);
}

Verdict Grader::grade(std::string_view completion, TextEnd end, std::vector<StepVerdict>& steps,
                      std::vector<std::int32_t>& found) {
  if (style_ == Style::kSymbolic)
    symbolic_.read(completion, end, names_, predicted_);
  else
    published_.read(completion, end, names_, predicted_);
  index_steps(predicted_, names_.size(), last_step_of_name_);

  int num_correct = 0;
  bool sound = !predicted_.stray && same_equation(predicted_.equation, gold_.equation);
  for (std::size_t i = 0; i < predicted_.steps.size(); ++i) {
    steps.push_back(judge(i, sound));
    num_correct += steps.back().correct ? 1 : 0;
  }
  Verdict verdict;
  for (const Step& gold : gold_.steps) found.push_back(last_step_of_name_[static_cast<std::size_t>(gold.name)]);
  for (int name = 0; name < num_gold_names_; ++name)
    verdict.num_missing += last_step_of_name_[static_cast<std::size_t>(name)] < 0 ? 1 : 0;
  names_.truncate(num_gold_names_);  // while the completion that the other names are views of is still there
  verdict.num_steps = static_cast<std::uint32_t>(predicted_.steps.size());
  verdict.ending = predicted_.answer.ending;
  verdict.answer = predicted_.answer.is_number ? predicted_.answer.value : Quantity::kNone;
  verdict.answer_correct = has_right_ending(gold_.answer) && has_right_ending(predicted_.answer) &&
                           predicted_.answer.value == gold_.answer.value;
  verdict.process_accuracy =
      num_gold_names_ > 0 ? static_cast<float>(num_correct) / static_cast<float>(num_gold_names_) : 0.0f;
  verdict.verified = verdict.answer_correct && gold_is_readable_ && num_correct == num_gold_names_;
  verdict.sound = verdict.verified && sound;
  return verdict;
}

// `sound` becomes false if anything that this step prints is wrong.
StepVerdict Grader::judge(std::size_t i, bool& sound) const {
  const Step& step = predicted_.steps[i];
  const auto name = static_cast<std::size_t>(step.name);
  const int gold = step.name < num_gold_names_ ? gold_step_of_name_[name] : -1;
  const bool repeated = last_step_of_name_[name] != static_cast<int>(i);
  const double value = step.has_value ? step.value : Quantity::kNone;
  StepVerdict verdict = {StepStatus::kExtra, false, gold, names_.hash(step.name), value, step.begin, step.end};
  bool wrong = step.slip || step.unreadable || step.undefined;
  if (gold >= 0) {
    const Step& wanted = gold_.steps[static_cast<std::size_t>(gold)];
    const bool parents = same_parents(step, wanted);
    const bool same_value = same_number(step.has_value, step.value, wanted.has_value, wanted.value);
    verdict.correct = !repeated && parents && same_value;
    verdict.status = fault(step, wanted, parents, same_value);
    wrong |= verdict.status != StepStatus::kRight;
  }
  if (repeated) verdict.status = StepStatus::kRepeated;
  sound = sound && !wrong;
  return verdict;
}

StepStatus Grader::fault(const Step& step, const Step& gold, bool same_parents, bool same_value) const {
  if (step.undefined) return StepStatus::kUndefinedVariable;
  if (!same_parents) return StepStatus::kWrongParents;
  if (step.unreadable) return StepStatus::kUnreadable;
  const bool is_leaf = step.parents_begin == step.parents_end;
  if (step.shape != gold.shape && (same_value || !is_leaf)) return StepStatus::kWrongOperator;
  if (step.slip) return StepStatus::kArithmeticSlip;
  return same_value ? StepStatus::kRight : StepStatus::kWrongValue;
}

bool Grader::same_parents(const Step& predicted, const Step& gold) const {
  const auto a = predicted_.parents.begin(), b = gold_.parents.begin();
  return std::equal(a + predicted.parents_begin, a + predicted.parents_end, b + gold.parents_begin,
                    b + gold.parents_end);
}

}  // namespace fastreason
