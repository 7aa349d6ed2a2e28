// Feeds the readers and verifiers any bytes, under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer.
//
// An input is a gold solution and a completion with the byte 0x1E between them; without that byte both are the whole
// input. Every text is graded in both styles. What must hold whatever they are is checked.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "grade/batch.h"

namespace fastreason {

namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

// What is taken for a plain header must be what a search finds.
void check_headers(std::string_view text) {
  for (std::size_t at = text.find(" Define "); at != std::string_view::npos; at = text.find(" Define ", at + 1)) {
    StepHeader plain, found;
    if (!is_plain_step_header(text, at, plain)) continue;
    require(find_step_header(text, at, found), "a plain header is a header");
    require(plain.begin == found.begin && plain.end == found.end && plain.letter == found.letter,
            "it is the first one");
    require(plain.name == trim(found.name), "it has the same name");
  }
}

void check_verdict(const BatchVerdicts& out, std::size_t j, std::int32_t size, std::int32_t num_tokens) {
  require(!out.sound[j] || out.verified[j], "sound implies verified");
  require(!out.verified[j] || (out.answer_correct[j] && out.process_accuracy[j] == 1.0f), "verified implies its parts");
  require(!out.verified[j] || out.gold_readable[j], "what is verified has a gold solution");
  require(!out.answer_correct[j] || (out.ending[j] == 0 && out.answer[j] == out.gold_answer[j]),
          "a right answer ends the text and is the gold answer");
  require(out.ending[j] <= static_cast<std::uint8_t>(Ending::kUnfinished), "the ending is one of the list");
  require(out.process_accuracy[j] >= 0.0f && out.process_accuracy[j] <= 1.0f, "process accuracy is a share");
  std::int32_t before = 0, num_correct = 0;
  for (auto k = static_cast<std::size_t>(out.step_offsets[j]); k < static_cast<std::size_t>(out.step_offsets[j + 1]);
       ++k) {
    require(before <= out.step_begin[k] && out.step_begin[k] <= out.step_end[k] && out.step_end[k] <= size,
            "steps stand one behind the other within the text");
    require(0 <= out.step_token_begin[k] && out.step_token_begin[k] <= out.step_token_end[k] &&
                out.step_token_end[k] <= num_tokens,
            "token spans lie within the tokens");
    require(out.step_status[k] <= static_cast<std::uint8_t>(StepStatus::kUnreadable), "the status is one of the list");
    before = out.step_end[k];
    num_correct += out.step_correct[k] ? 1 : 0;
  }
  const std::int64_t num_gold = out.gold_offsets[j + 1] - out.gold_offsets[j];
  require(num_correct <= num_gold && out.num_missing[j] <= num_gold, "no more correct or missing steps than gold ones");
  for (auto g = static_cast<std::size_t>(out.gold_offsets[j]); g < static_cast<std::size_t>(out.gold_offsets[j + 1]);
       ++g)
    require(out.gold_found[g] >= -1 && out.gold_found[g] < out.step_offsets[j + 1] - out.step_offsets[j],
            "found steps are steps");
}

// Tokens of three bytes each.
std::vector<std::uint32_t> token_ends(std::string_view text) {
  std::vector<std::uint32_t> ends;
  for (std::size_t end = 3; end < text.size() + 3; end += 3)
    ends.push_back(static_cast<std::uint32_t>(std::min(end, text.size())));
  return ends;
}

// Each of the two texts as the gold solution of both, one problem after the other in the same memory.
void check(std::string_view first, std::string_view second, Style style) {
  const std::vector<std::uint32_t> ends[] = {token_ends(first), token_ends(second)};
  const std::string_view texts[] = {first, second};
  GradeInput input;
  input.num_problems = 2;
  input.per_problem = 2;
  input.has_tokens = true;
  input.set_gold = [&](std::int64_t i, Grader& grader) { grader.set_gold(texts[i], style); };
  input.completion = [&](std::int64_t j, TextMemory& memory) {
    memory.text.assign(texts[j % 2]);
    return Completion{memory.text, true, ends[j % 2], {}};
  };
  if (first.empty() || second.empty()) return;  // no tokens
  const BatchVerdicts out = grade_batch(input, 1);
  for (std::size_t j = 0; j < 4; ++j)
    check_verdict(out, j, static_cast<std::int32_t>(texts[j % 2].size()),
                  static_cast<std::int32_t>(ends[j % 2].size()));
}

// Text behind a completion that is verified, each of them its own gold solution: it never is again. An answer that a
// full stop has not closed may be given it.
void check_appended(std::string_view gold, std::string_view more, Style style) {
  const auto is_blank_or_stop = [](char c) { return is_blank(c) || c == '.'; };
  if (std::all_of(more.begin(), more.end(), is_blank_or_stop)) return;
  Grader grader;
  std::vector<StepVerdict> steps;
  std::vector<std::int32_t> found;
  grader.set_gold(gold, style);
  if (!grader.grade(gold, {}, steps, found).verified) return;
  const bool is_closed = trim(gold).ends_with('.') || trim(gold).ends_with('>');
  const Verdict verdict = grader.grade(std::string(gold) + std::string(more), {}, steps, found);
  require(!verdict.verified || !is_closed, "what has text behind it is not verified");
  require(!grader.grade(gold, {TextEnd::kCut}, steps, found).verified, "what was cut is not verified");
}

// A number is a whole token: with a digit more it is another one or none.
void check_numbers(std::string_view text) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    double value = 0.0;
    const std::size_t end = read_number(text, at, value);
    require((end != std::string_view::npos) <= is_digit(text[at]), "a number begins with a digit");
    if (end == std::string_view::npos) continue;
    require(value < 1e15 && value == static_cast<double>(static_cast<std::int64_t>(value)), "it is exact");
    require(end == text.size() || (!is_word(text[end]) && static_cast<signed char>(text[end]) >= 0), "it ends a token");
    at = end;
  }
}

}  // namespace

}  // namespace fastreason

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = input.find('\x1e');
  const std::string gold(input.substr(0, cut));  // copies of their own, so that a read past the end is seen
  const std::string completion(cut == std::string_view::npos ? input : input.substr(cut + 1));
  fastreason::check_headers(completion);
  fastreason::check_numbers(completion);
  for (const auto style : {fastreason::Style::kPublished, fastreason::Style::kSymbolic})
    fastreason::check_appended(gold, completion, style);
  fastreason::check(gold, completion, fastreason::Style::kPublished);
  fastreason::check(gold, completion, fastreason::Style::kSymbolic);
  return 0;
}
