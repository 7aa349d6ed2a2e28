// Grades n completions of each of many problems in parallel, into one array a field.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/array.h"
#include "grade/verify.h"

namespace fastreason {

struct Completion {
  std::string_view text;
  bool count_characters = false;  // spans are characters of UTF-8, not bytes
  // Where each token of `text` ends, in bytes. With it, steps have spans of tokens too.
  std::span<const std::uint32_t> token_ends;
  TextEnd end;
};

// Memory that a source of texts may use for one text.
struct TextMemory {
  std::string text;
  std::vector<std::uint32_t> token_ends;
};

struct GradeInput {
  std::int64_t num_problems = 0, per_problem = 0;
  bool has_tokens = false;
  std::function<void(std::int64_t, Grader&)> set_gold;
  std::function<Completion(std::int64_t, TextMemory&)> completion;
};

// Of completion j the steps are step_offsets[j] .. step_offsets[j + 1] - 1, its gold steps likewise by gold_offsets.
struct BatchVerdicts {
  Array<std::uint8_t> ending;
  Array<bool> answer_correct, verified, sound;
  Array<float> process_accuracy;
  Array<double> answer;
  Array<std::int32_t> num_missing;

  Array<std::int64_t> step_offsets;
  Array<std::uint8_t> step_status;
  Array<bool> step_correct;
  Array<std::int32_t> step_gold;
  Array<std::uint64_t> step_name;
  Array<double> step_value;
  Array<std::int32_t> step_begin, step_end, step_token_begin, step_token_end;

  Array<std::int64_t> gold_offsets;
  Array<std::int32_t> gold_found;  // counted from the completion's own first step
  Array<double> gold_answer;       // of each completion's problem; not a number: none can be read
  Array<bool> gold_readable;       // likewise, see Grader::set_gold
};

// The same for any number of threads (0: all cores).
BatchVerdicts grade_batch(const GradeInput& input, int threads);

}  // namespace fastreason
