#include "grade/released.h"

#include <limits>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/texts.h"
#include "common/parallel.h"

namespace fastreason {

namespace {

constexpr std::int64_t kGrain = 64;  // completions a block

// Arrays of n entries, filled from any thread and handed over by name.
struct Columns {
  explicit Columns(std::int64_t n)
      : verified(n),
        answer_mismatch(n),
        process_accuracy(n),
        outcome(n),
        process_reward(n),
        answer(n),
        penalty(n),
        num_gold(n),
        num_predicted(n),
        num_missing(n),
        num_extra(n),
        num_wrong_value(n),
        num_wrong_parents(n) {}

  void write(std::int64_t i, const ReleasedVerdict& verdict) {
    const auto at = static_cast<std::size_t>(i);
    verified[at] = verdict.verified;
    answer_mismatch[at] = verdict.answer_mismatch;
    process_accuracy[at] = verdict.process_accuracy;
    outcome[at] = verdict.outcome ? 1.0f : 0.0f;
    process_reward[at] = static_cast<float>(verdict.process_reward);
    answer[at] = verdict.has_answer ? verdict.answer : std::numeric_limits<double>::quiet_NaN();
    penalty[at] = verdict.penalty;
    num_gold[at] = verdict.num_gold;
    num_predicted[at] = verdict.num_predicted;
    num_missing[at] = verdict.num_missing;
    num_extra[at] = verdict.num_extra;
    num_wrong_value[at] = verdict.num_wrong_value;
    num_wrong_parents[at] = verdict.num_wrong_parents;
  }

  py::dict to_dict() {
    py::dict out;
    out["released_verified"] = to_array(std::move(verified)).attr("view")("bool");
    out["released_process_accuracy"] = to_array(std::move(process_accuracy));
    out["released_outcome"] = to_array(std::move(outcome));
    out["released_process_reward"] = to_array(std::move(process_reward));
    out["answer"] = to_array(std::move(answer));
    out["answer_mismatch"] = to_array(std::move(answer_mismatch)).attr("view")("bool");
    out["penalty"] = to_array(std::move(penalty));
    out["num_gold"] = to_array(std::move(num_gold));
    out["num_predicted"] = to_array(std::move(num_predicted));
    out["num_missing"] = to_array(std::move(num_missing));
    out["num_extra"] = to_array(std::move(num_extra));
    out["num_wrong_value"] = to_array(std::move(num_wrong_value));
    out["num_wrong_parents"] = to_array(std::move(num_wrong_parents));
    return out;
  }

  std::vector<std::uint8_t> verified, answer_mismatch;
  std::vector<float> process_accuracy, outcome, process_reward;
  std::vector<double> answer;
  std::vector<std::int32_t> penalty, num_gold, num_predicted, num_missing, num_extra, num_wrong_value,
      num_wrong_parents;
};

void add_names(py::dict& out, const char* key, const std::vector<ReleasedDetail>& details,
               std::vector<std::string> ReleasedDetail::* names) {
  py::list lists;
  for (const ReleasedDetail& detail : details) lists.append(py::cast(detail.*names));
  out[key] = lists;
}

py::dict grade_released(const py::list& gold_solutions, const py::list& completions, int threads, bool detail) {
  const Texts gold(gold_solutions), texts(completions);
  const std::int64_t per_problem = completions_per_problem(gold.size(), texts.size(), "gold solutions");
  Columns columns(texts.size());
  std::vector<ReleasedDetail> details(static_cast<std::size_t>(detail ? texts.size() : 0));
  without_gil([&] {
    parallel_blocks(texts.size(), threads, kGrain, [&](std::int64_t begin, std::int64_t end) {
      ReleasedScorer scorer;
      std::int64_t problem = -1;
      for (std::int64_t j = begin; j < end; ++j) {
        if (j / per_problem != problem) scorer.set_gold(gold[problem = j / per_problem]);
        columns.write(j, scorer.score(texts[j], detail ? &details[static_cast<std::size_t>(j)] : nullptr));
      }
    });
  });
  py::dict out = columns.to_dict();
  if (!detail) return out;
  add_names(out, "missing", details, &ReleasedDetail::missing);
  add_names(out, "extra", details, &ReleasedDetail::extra);
  add_names(out, "wrong_value", details, &ReleasedDetail::wrong_value);
  add_names(out, "wrong_parents", details, &ReleasedDetail::wrong_parents);
  return out;
}

py::dict read_released(const py::object& text) {
  py::list texts;
  texts.append(text);
  const Texts views(texts);
  NameTable names;
  ReleasedReader reader;
  reader.read(views[0], names);
  const auto name = [&](int id) { return py::str(names.name(id).data(), names.name(id).size()); };
  py::list steps;
  for (const ReleasedReader::Step& step : reader.steps()) {
    py::list parents;
    for (const int parent : reader.parents(step)) parents.append(name(parent));
    const py::object value = step.has_value ? py::object(py::float_(step.value)) : py::none();
    steps.append(py::make_tuple(name(step.name), value, parents));
  }
  py::dict out;
  out["steps"] = steps;
  out["answer"] = reader.has_answer() ? py::object(py::float_(reader.answer())) : py::none();
  return out;
}

}  // namespace

void bind_released(py::module_& m) {
  m.def(
      "grade_released", &grade_released, py::arg("gold_solutions"), py::arg("completions"), py::kw_only(),
      py::arg("threads") = 0, py::arg("detail") = false,
      "The released scorer's verdicts on n completions per gold solution as arrays [completions]; with `detail` also\n"
      "lists of step names. The same for any `threads` (0: all cores).");
  m.def("read_released", &read_released, py::arg("text"),
        "What the released scorer reads in one text: (name, value or None, names of parents) of every step, and the\n"
        "answer or None.");
}

}  // namespace fastreason
