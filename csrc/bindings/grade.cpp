#include <algorithm>
#include <optional>
#include <string>

#include "bindings/bindings.h"
#include "bindings/texts.h"
#include "grade/batch.h"
#include "tasks/stream.h"
#include "text/tokenizer.h"

namespace fastreason {

namespace {

py::dict to_dict(BatchVerdicts&& verdicts, bool has_tokens) {
  py::dict out;
  out["ending"] = to_array(std::move(verdicts.ending));
  out["answer_correct"] = to_array(std::move(verdicts.answer_correct));
  out["verified"] = to_array(std::move(verdicts.verified));
  out["sound"] = to_array(std::move(verdicts.sound));
  out["process_accuracy"] = to_array(std::move(verdicts.process_accuracy));
  out["answer"] = to_array(std::move(verdicts.answer));
  out["num_missing"] = to_array(std::move(verdicts.num_missing));
  out["step_offsets"] = to_array(std::move(verdicts.step_offsets));
  out["step_status"] = to_array(std::move(verdicts.step_status));
  out["step_correct"] = to_array(std::move(verdicts.step_correct));
  out["step_gold"] = to_array(std::move(verdicts.step_gold));
  out["step_name"] = to_array(std::move(verdicts.step_name));
  out["step_value"] = to_array(std::move(verdicts.step_value));
  out["step_begin"] = to_array(std::move(verdicts.step_begin));
  out["step_end"] = to_array(std::move(verdicts.step_end));
  if (has_tokens) {
    out["step_token_begin"] = to_array(std::move(verdicts.step_token_begin));
    out["step_token_end"] = to_array(std::move(verdicts.step_token_end));
  }
  out["gold_offsets"] = to_array(std::move(verdicts.gold_offsets));
  out["gold_found"] = to_array(std::move(verdicts.gold_found));
  out["gold_readable"] = to_array(std::move(verdicts.gold_readable));
  out["gold_answer"] = to_array(std::move(verdicts.gold_answer));
  return out;
}

py::dict grade(const GradeInput& input, int threads) {
  BatchVerdicts verdicts;
  {
    py::gil_scoped_release release;
    verdicts = grade_batch(input, threads);
  }
  return to_dict(std::move(verdicts), input.has_tokens);
}

auto gold_of(const ProblemBatch& batch) {
  return [&batch](std::int64_t i, Grader& grader) { grader.set_gold(batch.solution_graph(i), batch.theme(i)); };
}

using Flags = std::optional<py::array_t<bool, py::array::c_style | py::array::forcecast>>;

// What the caller says of the ends of n completions.
class Ends {
 public:
  Ends(const Flags& finished, const Flags& may_be_open, std::int64_t n)
      : finished_(data_of(finished, "finished", n)), may_be_open_(data_of(may_be_open, "answer_may_end_text", n)) {}

  // `unsaid`: what holds where the caller does not say.
  TextEnd of(std::int64_t j, TextEnd::Kind unsaid) const {
    const TextEnd::Kind kind = finished_ == nullptr ? unsaid : finished_[j] ? TextEnd::kWhole : TextEnd::kCut;
    return {kind, may_be_open_ != nullptr && may_be_open_[j]};
  }

 private:
  static const bool* data_of(const Flags& flags, const char* name, std::int64_t n) {
    if (!flags) return nullptr;
    if (flags->ndim() != 1 || flags->shape(0) != n)
      throw py::value_error(std::string(name) + " must be bool [" + std::to_string(n) + "], one for each completion");
    return flags->data();
  }

  const bool* finished_;
  const bool* may_be_open_;
};

auto completions_of(const Texts& texts, const Ends& ends) {
  return [&](std::int64_t j, TextMemory&) {
    return Completion{texts[j], texts.is_wide(j), {}, ends.of(j, TextEnd::kWhole)};
  };
}

py::dict grade_problems(const ProblemBatch& batch, const py::list& completions, const Flags& finished,
                        const Flags& may_be_open, int threads) {
  const Texts texts(completions);
  const Ends ends(finished, may_be_open, texts.size());
  const std::int64_t per_problem = completions_per_problem(batch.size(), texts.size());
  return grade({batch.size(), per_problem, false, gold_of(batch), completions_of(texts, ends)}, threads);
}

py::dict grade_texts(const py::list& gold_solutions, const py::list& completions, const Flags& finished,
                     const Flags& may_be_open, int threads) {
  const Texts gold(gold_solutions), texts(completions);
  const std::int64_t per_problem = completions_per_problem(gold.size(), texts.size(), "gold solutions");
  const auto gold_at = [&](std::int64_t i, Grader& grader) {
    const bool published = gold[i].find("Define ") != std::string_view::npos;
    grader.set_gold(gold[i], published ? Style::kPublished : Style::kSymbolic);
  };
  const Ends ends(finished, may_be_open, texts.size());
  return grade({gold.size(), per_problem, false, gold_at, completions_of(texts, ends)}, threads);
}

py::dict grade_tokens(const ProblemBatch& batch, const InputArray<std::int32_t>& tokens, const Tokenizer& tokenizer,
                      const Flags& finished, const Flags& may_be_open, int threads) {
  if (tokens.ndim() != 2)
    throw py::value_error("token completions must be 2-D [completions, length], got " + std::to_string(tokens.ndim()) +
                          "-D");
  const std::int64_t length = tokens.shape(1);
  const std::int64_t per_problem = completions_per_problem(batch.size(), tokens.shape(0));
  const Ends ends(finished, may_be_open, tokens.shape(0));
  const std::int32_t* ids = tokens.data();
  const auto completion_at = [&](std::int64_t j, TextMemory& memory) {
    const std::int32_t* begin = ids + j * length;
    const auto* end = std::find_if(begin, begin + length, [&](std::int32_t id) {
      return id == tokenizer.end_id() || id == tokenizer.padding_id();
    });
    for (const auto* id = begin; id < end; ++id) {
      tokenizer.decode({id, 1}, memory.text);
      memory.token_ends.push_back(static_cast<std::uint32_t>(memory.text.size()));
    }
    const auto unsaid = end < begin + length ? TextEnd::kWhole : TextEnd::kUnknown;
    return Completion{memory.text, true, memory.token_ends, ends.of(j, unsaid)};
  };
  return grade({batch.size(), per_problem, true, gold_of(batch), completion_at}, threads);
}

// The gold traces of a batch, of its graphs or of its texts, one row a problem.
py::list gold_traces(const ProblemBatch& batch, bool from_text) {
  py::list rows;
  Grader grader;
  std::string text;
  for (std::int64_t i = 0; i < batch.size(); ++i) {
    text.clear();
    batch.append_solution(i, text);
    if (from_text)
      grader.set_gold(text, batch.theme(i).style());
    else
      grader.set_gold(batch.solution_graph(i), batch.theme(i));
    const Trace& gold = grader.gold();
    py::list steps;
    for (const Step& step : gold.steps) {
      const auto first = gold.parents.begin();
      const std::vector<int> parents(first + step.parents_begin, first + step.parents_end);
      const std::string name(grader.names().name(step.name));
      const bool faulty = step.undefined || step.slip || step.unreadable || !step.has_value;
      steps.append(py::make_tuple(name, step.value, step.shape, parents, faulty));
    }
    const Equation& equation = gold.equation;
    rows.append(py::make_tuple(steps, gold.answer.value, has_right_ending(gold.answer), gold.stray, equation.present,
                               equation.exact, equation.target, equation.told));
  }
  return rows;
}

}  // namespace

void bind_grade(py::module_& m) {
  const auto finished = py::arg("finished") = py::none(), may_be_open = py::arg("answer_may_end_text") = py::none();
  const auto threads = py::arg("threads") = 0;
  m.def("grade_batch", &grade_problems, py::arg("batch"), py::arg("completions"), py::kw_only(), finished, may_be_open,
        threads, "Verdicts of n completions per problem as arrays. The same for any `threads` (0: all cores).");
  m.def("grade_tokens", &grade_tokens, py::arg("batch"), py::arg("tokens"), py::arg("tokenizer"), py::kw_only(),
        finished, may_be_open, threads,
        "grade_batch of int32 [completions, length]; a row ends at its first [EOS] or [PAD].");
  m.def("grade_texts", &grade_texts, py::arg("gold_solutions"), py::arg("completions"), py::kw_only(), finished,
        may_be_open, threads, "grade_batch with the gold solutions as texts.");
  m.def("gold_traces", &gold_traces, py::arg("batch"), py::kw_only(), py::arg("from_text"),
        "What the gold solutions of a batch are compared as, for tests: of their graphs or read from their texts.");
}

}  // namespace fastreason
