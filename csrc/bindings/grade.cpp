#include <algorithm>
#include <memory>
#include <string>

#include "bindings/bindings.h"
#include "bindings/texts.h"
#include "common/parallel.h"
#include "grade/verify.h"
#include "tasks/stream.h"
#include "text/tokenizer.h"

namespace fastreason {

namespace {

constexpr std::int64_t kGrain = 32;  // problems a block

struct Block {
  std::vector<Verdict> verdicts;
  std::vector<StepVerdict> steps;
};

py::dict to_dict(const std::vector<Block>& blocks, std::int64_t n) {
  py::array_t<bool> answer_correct(n), verified(n);
  py::array_t<float> process_accuracy(n);
  std::vector<std::int64_t> offsets = {0};
  std::size_t num_steps = 0;
  for (const Block& block : blocks) num_steps += block.steps.size();
  std::vector<std::uint8_t> status;
  std::vector<std::int16_t> gold_step;
  std::vector<std::int32_t> begin, end;
  for (auto* v : {&begin, &end}) v->reserve(num_steps);
  status.reserve(num_steps);
  gold_step.reserve(num_steps);
  std::int64_t i = 0;
  for (const Block& block : blocks) {
    for (const Verdict& verdict : block.verdicts) {
      answer_correct.mutable_data()[i] = verdict.answer_correct;
      verified.mutable_data()[i] = verdict.verified;
      process_accuracy.mutable_data()[i] = verdict.process_accuracy;
      offsets.push_back(offsets.back() + verdict.num_steps);
      ++i;
    }
    for (const StepVerdict& step : block.steps) {
      status.push_back(static_cast<std::uint8_t>(step.status));
      gold_step.push_back(step.gold_step);
      begin.push_back(static_cast<std::int32_t>(step.begin));
      end.push_back(static_cast<std::int32_t>(step.end));
    }
  }
  py::dict out;
  out["answer_correct"] = answer_correct;
  out["verified"] = verified;
  out["process_accuracy"] = process_accuracy;
  out["step_offsets"] = to_array(std::move(offsets));
  out["step_status"] = to_array(std::move(status));
  out["step_gold"] = to_array(std::move(gold_step));
  out["step_begin"] = to_array(std::move(begin));
  out["step_end"] = to_array(std::move(end));
  return out;
}

// Grades `per_problem` completions of each of `num_problems` problems. gold_at(i, text) gives solution and style of
// problem i, completion_at(j, text) the text of completion j; both may use `text` as memory.
template <class GoldAt, class CompletionAt>
std::vector<Block> grade_all(std::int64_t num_problems, std::int64_t per_problem, int threads, GoldAt&& gold_at,
                             CompletionAt&& completion_at) {
  std::vector<Block> blocks(static_cast<std::size_t>((num_problems + kGrain - 1) / kGrain));
  parallel_blocks(static_cast<std::int64_t>(blocks.size()), threads, 1, [&](std::int64_t first, std::int64_t last) {
    Grader grader;
    std::string gold_text, text;
    for (std::int64_t b = first; b < last; ++b) {
      Block& block = blocks[static_cast<std::size_t>(b)];
      for (std::int64_t i = b * kGrain; i < std::min(num_problems, (b + 1) * kGrain); ++i) {
        gold_text.clear();
        const auto [solution, style] = gold_at(i, gold_text);
        grader.set_gold(solution, style);
        for (std::int64_t j = i * per_problem; j < (i + 1) * per_problem; ++j) {
          text.clear();
          block.verdicts.push_back(grader.grade(completion_at(j, text), block.steps));
        }
      }
    }
  });
  return blocks;
}

auto gold_of(const ProblemBatch& batch) {
  return [&batch](std::int64_t i, std::string& text) {
    batch.append_solution(i, text);
    return std::pair<std::string_view, Style>(text, batch.theme(i).style());
  };
}

py::dict grade_batch(const ProblemBatch& batch, const py::list& completions, int threads) {
  const Texts texts(completions);
  const std::int64_t per_problem = completions_per_problem(batch.size(), texts.size());
  std::vector<Block> blocks;
  {
    py::gil_scoped_release release;
    blocks = grade_all(batch.size(), per_problem, threads, gold_of(batch),
                       [&](std::int64_t j, std::string&) { return texts[j]; });
  }
  return to_dict(blocks, texts.size());
}

py::dict grade_tokens(const ProblemBatch& batch, const InputArray<std::int32_t>& tokens, const Tokenizer& tokenizer,
                      int threads) {
  if (tokens.ndim() != 2)
    throw py::value_error("token completions must be 2-D [completions, length], got " + std::to_string(tokens.ndim()) +
                          "-D");
  const std::int64_t n = tokens.shape(0), length = tokens.shape(1);
  const std::int64_t per_problem = completions_per_problem(batch.size(), n);
  const std::int32_t* ids = tokens.data();
  std::vector<Block> blocks;
  {
    py::gil_scoped_release release;
    blocks = grade_all(batch.size(), per_problem, threads, gold_of(batch), [&](std::int64_t j, std::string& text) {
      const std::int32_t* begin = ids + j * length;
      const auto* end = std::find_if(begin, begin + length, [&](std::int32_t id) {
        return id == tokenizer.end_id() || id == tokenizer.padding_id();
      });
      tokenizer.decode({begin, end}, text);
      return std::string_view(text);
    });
  }
  return to_dict(blocks, n);
}

py::dict grade_texts(const py::list& gold_solutions, const py::list& completions, int threads) {
  const Texts gold(gold_solutions), texts(completions);
  if (gold.size() != texts.size())
    throw py::value_error("grade_texts: need one completion per gold solution, got " + std::to_string(gold.size()) +
                          " gold solutions and " + std::to_string(texts.size()) + " completions");
  std::vector<Block> blocks;
  {
    py::gil_scoped_release release;
    blocks = grade_all(
        gold.size(), 1, threads,
        [&](std::int64_t i, std::string&) {
          const bool published = gold[i].find("Define ") != std::string_view::npos;
          return std::pair(gold[i], published ? Style::kPublished : Style::kSymbolic);
        },
        [&](std::int64_t j, std::string&) { return texts[j]; });
  }
  return to_dict(blocks, texts.size());
}

}  // namespace

void bind_grade(py::module_& m) {
  m.def("grade_batch", &grade_batch, py::arg("batch"), py::arg("completions"), py::kw_only(), py::arg("threads") = 0,
        "Verdicts of n completions per problem as arrays. The same for any `threads` (0: all cores).");
  m.def("grade_tokens", &grade_tokens, py::arg("batch"), py::arg("tokens"), py::arg("tokenizer"), py::kw_only(),
        py::arg("threads") = 0, "grade_batch of int32 [completions, length]; a row ends at its first [EOS] or [PAD].");
  m.def("grade_texts", &grade_texts, py::arg("gold_solutions"), py::arg("completions"), py::kw_only(),
        py::arg("threads") = 0, "Verdicts of completion i against gold solution i.");
}

}  // namespace fastreason
