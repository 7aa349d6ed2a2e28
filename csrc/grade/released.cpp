#include "grade/released.h"

#include <algorithm>
#include <cmath>

namespace fastreason {

namespace {

using Step = ReleasedReader::Step;

// A value that is no number is equal to all.
bool differ(bool has_a, double a, bool has_b, double b) {
  constexpr double kTolerance = 1e-6;
  return has_a != has_b || (has_a && std::abs(a - b) > kTolerance);
}

void index_steps(const ReleasedReader& reading, int num_names, std::vector<int>& last_step) {
  last_step.assign(static_cast<std::size_t>(num_names), -1);
  for (std::size_t i = 0; i < reading.steps().size(); ++i)
    last_step[static_cast<std::size_t>(reading.steps()[i].name)] = static_cast<int>(i);
}

}  // namespace

void ReleasedScorer::set_gold(std::string_view solution) {
  names_.clear();
  gold_.read(solution, names_);
  gold_answer_ = gold_.gold_answer();
  num_gold_names_ = names_.size();
  index_steps(gold_, num_gold_names_, gold_step_of_name_);
}

ReleasedVerdict ReleasedScorer::score(std::string_view completion, ReleasedDetail* detail) {
  if (detail) *detail = {};
  predicted_.read(completion, names_);
  index_steps(predicted_, names_.size(), predicted_step_of_name_);
  ReleasedVerdict verdict;
  verdict.has_answer = predicted_.has_answer();
  if (verdict.has_answer) verdict.answer = predicted_.answer();
  verdict.answer_mismatch = differ(gold_.has_answer(), gold_.answer(), verdict.has_answer, verdict.answer);
  compare_steps(verdict, detail);
  names_.truncate(num_gold_names_);  // while the completion that the other names are views of is still there

  const int num_nodes = std::max(1, verdict.num_gold);
  verdict.penalty = verdict.num_missing + verdict.num_wrong_value + verdict.num_wrong_parents +
                    std::min(verdict.num_extra, num_nodes) + (verdict.answer_mismatch ? 1 : 0);
  std::string_view answer;
  if (predicted_.tagged_answer(answer)) answer = answer.substr(0, answer.find_last_not_of('.') + 1);
  verdict.outcome = !gold_answer_.empty() && answer == gold_answer_;
  verdict.process_reward = std::max(0.0, 1.0 - static_cast<double>(verdict.penalty) / num_nodes);
  if (gold_.is_empty()) verdict.process_reward = verdict.outcome ? 1.0 : 0.0;
  return verdict;
}

void ReleasedScorer::compare_steps(ReleasedVerdict& verdict, ReleasedDetail* detail) {
  const auto note = [&](bool noted, int name, int& count, std::vector<std::string> ReleasedDetail::* list) {
    count += noted ? 1 : 0;
    if (noted && detail) (detail->*list).emplace_back(names_.name(name));
  };
  int num_right = 0;
  verdict.num_gold = num_gold_names_;
  for (int name = 0; name < names_.size(); ++name) {
    const auto at = static_cast<std::size_t>(name);
    const int predicted_step = predicted_step_of_name_[at];
    const bool is_gold = name < num_gold_names_, is_predicted = predicted_step >= 0;
    verdict.num_predicted += is_predicted ? 1 : 0;
    note(!is_predicted, name, verdict.num_missing, &ReleasedDetail::missing);
    note(!is_gold, name, verdict.num_extra, &ReleasedDetail::extra);
    if (!is_gold || !is_predicted) continue;
    const Step& a = gold_.steps()[static_cast<std::size_t>(gold_step_of_name_[at])];
    const Step& b = predicted_.steps()[static_cast<std::size_t>(predicted_step)];
    const auto parents = gold_.parents(a), other_parents = predicted_.parents(b);
    const bool wrong_value = differ(a.has_value, a.value, b.has_value, b.value);
    const bool wrong_parents = !std::ranges::equal(parents, other_parents);
    note(wrong_value, name, verdict.num_wrong_value, &ReleasedDetail::wrong_value);
    note(wrong_parents, name, verdict.num_wrong_parents, &ReleasedDetail::wrong_parents);
    num_right += wrong_value || wrong_parents ? 0 : 1;
  }
  verdict.process_accuracy =
      num_gold_names_ > 0 ? static_cast<float>(num_right) / static_cast<float>(num_gold_names_) : 1.0f;
  verdict.verified = num_right == num_gold_names_ && !verdict.answer_mismatch;
  if (!detail) return;
  for (auto* list : {&detail->missing, &detail->extra, &detail->wrong_value, &detail->wrong_parents})
    std::sort(list->begin(), list->end());
}

}  // namespace fastreason
