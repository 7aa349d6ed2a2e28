// Numbers as a model writes them. Never an error: too many digits give a large value, or infinity.
#pragma once

#include <string_view>

#include "grade/characters.h"

namespace fastreason {

// The decimal number at the start of `text`, with an optional sign right before it and, if `decimals`, a fraction.
// Returns its length in bytes, 0 if there is none.
inline std::size_t read_number(std::string_view text, bool decimals, double& value) {
  std::size_t at = 0;
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) ++at;
  const std::size_t digits = at;
  double result = 0.0;
  for (; at < text.size() && is_digit(text[at]); ++at) result = 10.0 * result + (text[at] - '0');
  if (at == digits) return 0;
  if (decimals && at + 1 < text.size() && text[at] == '.' && is_digit(text[at + 1])) {
    ++at;
    for (double unit = 0.1; at < text.size() && is_digit(text[at]); ++at, unit /= 10.0)
      result += unit * (text[at] - '0');
  }
  value = negative ? -result : result;
  return at;
}

// The last integer anywhere in `text`, with a sign if one stands right before it.
inline bool last_number(std::string_view text, double& value) {
  std::size_t end = text.size();
  while (end > 0 && !is_digit(text[end - 1])) --end;
  if (end == 0) return false;
  std::size_t begin = end;
  while (begin > 0 && is_digit(text[begin - 1])) --begin;
  if (begin > 0 && (text[begin - 1] == '-' || text[begin - 1] == '+')) --begin;
  return read_number(text.substr(begin, end - begin), false, value) > 0;
}

// The first `<answer>` (any case) that blanks and a number follow, else the first `Answer:` that they follow.
inline bool find_answer(std::string_view text, double& answer) {
  constexpr std::string_view kTag = "<answer>", kWord = "Answer:";
  const auto number_at = [&](std::size_t at) {
    return read_number(text.substr(skip_blanks(text, at)), true, answer) > 0;
  };
  for (std::size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at + 1))
    if (has_word(text, at, kTag) && number_at(at + kTag.size())) return true;
  for (std::size_t at = text.find(kWord); at != std::string_view::npos; at = text.find(kWord, at + 1))
    if (number_at(at + kWord.size())) return true;
  return false;
}

}  // namespace fastreason
