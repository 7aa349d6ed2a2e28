#include "grade/expression.h"

#include "grade/trace.h"

namespace fastreason {

namespace {

constexpr std::string_view kAnswerTag = "<answer>", kAnswerWord = "Answer:";

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool starts_with_ignoring_case(std::string_view text, std::string_view lower_case) {
  if (text.size() < lower_case.size()) return false;
  for (std::size_t i = 0; i < lower_case.size(); ++i)
    if (lower(text[i]) != lower_case[i]) return false;
  return true;
}

bool number_after_blanks(std::string_view text, double& value) {
  std::size_t at = 0;
  while (at < text.size() && is_blank(text[at])) ++at;
  return read_number(text.substr(at), true, value) > 0;
}

}  // namespace

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

std::size_t read_number(std::string_view text, bool decimals, double& value) {
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

bool last_number(std::string_view text, double& value) {
  std::size_t end = text.size();
  while (end > 0 && !is_digit(text[end - 1])) --end;
  if (end == 0) return false;
  std::size_t begin = end;
  while (begin > 0 && is_digit(text[begin - 1])) --begin;
  if (begin > 0 && (text[begin - 1] == '-' || text[begin - 1] == '+')) --begin;
  return read_number(text.substr(begin, end - begin), false, value) > 0;
}

bool find_answer(std::string_view text, double& answer) {
  for (std::size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at + 1))
    if (starts_with_ignoring_case(text.substr(at), kAnswerTag) &&
        number_after_blanks(text.substr(at + kAnswerTag.size()), answer))
      return true;
  for (std::size_t at = text.find(kAnswerWord); at != std::string_view::npos; at = text.find(kAnswerWord, at + 1))
    if (number_after_blanks(text.substr(at + kAnswerWord.size()), answer)) return true;
  return false;
}

}  // namespace fastreason
