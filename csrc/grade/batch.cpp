#include "grade/batch.h"

#include <algorithm>

#include "common/interrupt.h"
#include "common/parallel.h"
#include "grade/spans.h"

namespace fastreason {

namespace {

constexpr std::int64_t kGrain = 32;  // problems a block

// The verdicts of one block, whose sizes are not known before.
struct Block {
  std::vector<StepVerdict> steps;
  std::vector<TokenSpan> token_spans;
  std::vector<std::int32_t> found;
};

BatchVerdicts allocate(std::size_t n) {
  BatchVerdicts out;
  out.ending = Array<std::uint8_t>(n);
  out.answer_correct = Array<bool>(n);
  out.verified = Array<bool>(n);
  out.sound = Array<bool>(n);
  out.process_accuracy = Array<float>(n);
  out.answer = Array<double>(n);
  out.num_missing = Array<std::int32_t>(n);
  out.step_offsets = Array<std::int64_t>(n + 1);
  out.gold_offsets = Array<std::int64_t>(n + 1);
  out.gold_answer = Array<double>(n);
  out.gold_readable = Array<bool>(n);
  return out;
}

void allocate_steps(std::size_t num_steps, std::size_t num_gold, bool has_tokens, BatchVerdicts& out) {
  out.step_status = Array<std::uint8_t>(num_steps);
  out.step_correct = Array<bool>(num_steps);
  out.step_gold = Array<std::int32_t>(num_steps);
  out.step_name = Array<std::uint64_t>(num_steps);
  out.step_value = Array<double>(num_steps);
  for (auto* spans : {&out.step_begin, &out.step_end}) *spans = Array<std::int32_t>(num_steps);
  if (has_tokens)
    for (auto* spans : {&out.step_token_begin, &out.step_token_end}) *spans = Array<std::int32_t>(num_steps);
  out.gold_found = Array<std::int32_t>(num_gold);
}

// Grades completion j, and leaves in the offsets how many steps and gold steps it has.
void grade_one(Grader& grader, const Completion& completion, std::size_t j, Block& block, BatchVerdicts& out) {
  interruption_point();
  const std::size_t first = block.steps.size();
  const Verdict verdict = grader.grade(completion.text, completion.end, block.steps, block.found);
  out.ending[j] = static_cast<std::uint8_t>(verdict.ending);
  out.answer_correct[j] = verdict.answer_correct;
  out.verified[j] = verdict.verified;
  out.sound[j] = verdict.sound;
  out.process_accuracy[j] = verdict.process_accuracy;
  out.answer[j] = verdict.answer;
  out.num_missing[j] = verdict.num_missing;
  out.step_offsets[j + 1] = verdict.num_steps;
  out.gold_offsets[j + 1] = static_cast<std::int64_t>(grader.num_gold_steps());
  out.gold_answer[j] = grader.gold_answer();
  out.gold_readable[j] = grader.gold_is_readable();
  const std::span steps = std::span(block.steps).subspan(first);
  for (const StepVerdict& step : steps)
    if (!completion.token_ends.empty())
      block.token_spans.push_back(tokens_of(step.begin, step.end, completion.token_ends));
  if (completion.count_characters) bytes_to_characters(completion.text, steps);
}

void grade_block(const GradeInput& input, std::int64_t begin, std::int64_t end, Grader& grader, Block& block,
                 BatchVerdicts& out) {
  TextMemory memory;
  for (std::int64_t i = begin; i < end; ++i) {
    input.set_gold(i, grader);
    for (std::int64_t j = i * input.per_problem; j < (i + 1) * input.per_problem; ++j) {
      memory.text.clear();
      memory.token_ends.clear();
      grade_one(grader, input.completion(j, memory), static_cast<std::size_t>(j), block, out);
    }
  }
}

void copy_block(const Block& block, std::size_t step, std::size_t gold, BatchVerdicts& out) {
  std::copy(block.found.begin(), block.found.end(), out.gold_found.data() + gold);
  for (std::size_t k = 0; k < block.token_spans.size(); ++k) {
    out.step_token_begin[step + k] = block.token_spans[k].begin;
    out.step_token_end[step + k] = block.token_spans[k].end;
  }
  for (const StepVerdict& verdict : block.steps) {
    out.step_status[step] = static_cast<std::uint8_t>(verdict.status);
    out.step_correct[step] = verdict.correct;
    out.step_gold[step] = verdict.gold_step;
    out.step_name[step] = verdict.name;
    out.step_value[step] = verdict.value;
    out.step_begin[step] = static_cast<std::int32_t>(verdict.begin);
    out.step_end[step] = static_cast<std::int32_t>(verdict.end);
    ++step;
  }
}

void accumulate(Array<std::int64_t>& offsets) {
  offsets[0] = 0;
  for (std::size_t j = 1; j < offsets.size(); ++j) offsets[j] += offsets[j - 1];
}

}  // namespace

BatchVerdicts grade_batch(const GradeInput& input, int threads) {
  const auto n = static_cast<std::size_t>(input.num_problems * input.per_problem);
  BatchVerdicts out = allocate(n);
  const std::int64_t num_blocks = (input.num_problems + kGrain - 1) / kGrain;
  std::vector<Block> blocks(static_cast<std::size_t>(num_blocks));
  parallel_blocks(num_blocks, threads, 1, [&](std::int64_t first, std::int64_t last) {
    Grader grader;
    for (std::int64_t b = first; b < last; ++b)
      grade_block(input, b * kGrain, std::min(input.num_problems, (b + 1) * kGrain), grader,
                  blocks[static_cast<std::size_t>(b)], out);
  });
  accumulate(out.step_offsets);
  accumulate(out.gold_offsets);
  allocate_steps(static_cast<std::size_t>(out.step_offsets[n]), static_cast<std::size_t>(out.gold_offsets[n]),
                 input.has_tokens, out);
  parallel_blocks(num_blocks, threads, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      const auto j = static_cast<std::size_t>(b * kGrain * input.per_problem);
      copy_block(blocks[static_cast<std::size_t>(b)], static_cast<std::size_t>(out.step_offsets[j]),
                 static_cast<std::size_t>(out.gold_offsets[j]), out);
    }
  });
  return out;
}

}  // namespace fastreason
