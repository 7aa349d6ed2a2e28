#include "grade/verify.h"

#include <algorithm>
#include <cmath>

namespace fastreason {

namespace {

constexpr double kTolerance = 1e-6;

bool same_number(bool has_a, double a, bool has_b, double b) {
  return has_a == has_b && (!has_a || std::abs(a - b) <= kTolerance);
}

// For every name the number of its last step, -1 for names without one.
void index_steps(const Trace& trace, int num_names, std::vector<int>& last_step) {
  last_step.assign(static_cast<std::size_t>(num_names), -1);
  for (std::size_t i = 0; i < trace.steps.size(); ++i)
    last_step[static_cast<std::size_t>(trace.steps[i].name)] = static_cast<int>(i);
}

}  // namespace

void Grader::set_gold(std::string_view solution, Style style) {
  style_ = style;
  names_.clear();
  if (style == Style::kSymbolic)
    symbolic_.read(solution, names_, gold_);
  else
    published_gold_.read(solution, names_, gold_);  // its own reader: names may point into it
  num_gold_names_ = names_.size();
  index_steps(gold_, num_gold_names_, gold_step_of_name_);
}

Verdict Grader::grade(std::string_view completion, std::vector<StepVerdict>& steps) {
  if (style_ == Style::kSymbolic)
    symbolic_.read(completion, names_, predicted_);
  else
    published_.read(completion, names_, predicted_);
  index_steps(predicted_, names_.size(), last_step_of_name_);

  int num_right = 0;
  for (std::size_t i = 0; i < predicted_.steps.size(); ++i) {
    const Step& step = predicted_.steps[i];
    const int gold = step.name < num_gold_names_ ? gold_step_of_name_[static_cast<std::size_t>(step.name)] : -1;
    StepStatus status = StepStatus::kExtra;
    if (last_step_of_name_[static_cast<std::size_t>(step.name)] != static_cast<int>(i))
      status = StepStatus::kRepeated;
    else if (gold >= 0)
      status = compare(step, gold_.steps[static_cast<std::size_t>(gold)]);
    num_right += status == StepStatus::kRight ? 1 : 0;
    steps.push_back({status, static_cast<std::int16_t>(std::min(gold, 32767)), step.begin, step.end});
  }
  names_.truncate(num_gold_names_);  // while the completion that the other names are views of is still there
  Verdict verdict;
  verdict.num_steps = static_cast<std::uint32_t>(predicted_.steps.size());
  verdict.answer_correct =
      gold_.has_answer && same_number(true, gold_.answer, predicted_.has_answer, predicted_.answer);
  verdict.process_accuracy =
      num_gold_names_ > 0 ? static_cast<float>(num_right) / static_cast<float>(num_gold_names_) : 0.0f;
  verdict.verified = verdict.answer_correct && num_gold_names_ > 0 && num_right == num_gold_names_;
  return verdict;
}

StepStatus Grader::compare(const Step& predicted, const Step& gold) const {
  const auto parents = [](const Trace& trace, const Step& step) {
    return std::span(trace.parents).subspan(step.parents_begin, step.parents_end - step.parents_begin);
  };
  const auto a = parents(predicted_, predicted), b = parents(gold_, gold);
  if (!std::equal(a.begin(), a.end(), b.begin(), b.end())) return StepStatus::kWrongParents;
  return same_number(predicted.has_value, predicted.value, gold.has_value, gold.value) ? StepStatus::kRight
                                                                                       : StepStatus::kWrongValue;
}

}  // namespace fastreason
