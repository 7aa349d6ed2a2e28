// Parts of a chain that stand as the format writes them: they follow from the definition, and nothing is evaluated.
#pragma once

#include <cmath>
#include <string_view>
#include <vector>

#include "grade/expression.h"

namespace fastreason {

// Where the form at `at` and the blanks behind it end if it is `wanted` as the format writes it, "7", "-4", "x",
// "2*x + 3" or "x - 3"; npos if not, and where the slope is negative.
inline std::size_t match_value(std::string_view text, std::size_t at, const Quantity& wanted) {
  constexpr auto kNowhere = std::string_view::npos;
  const auto match_number = [&](double n) {
    double value = 0.0;
    at = read_number(text, skip_blanks(text, at), value);
    if (at == kNowhere || value != n) return false;
    at = skip_blanks(text, at);
    return true;
  };
  const auto match_sign = [&](char c) {
    const bool found = at < text.size() && text[at] == c;
    at = found ? skip_blanks(text, at + 1) : at;
    return found;
  };
  at = skip_blanks(text, at);
  if (wanted.slope == 0.0) {
    if (wanted.constant < 0.0 && !match_sign('-')) return kNowhere;
    return match_number(std::abs(wanted.constant)) ? at : kNowhere;
  }
  if (wanted.slope != 1.0 && (!match_number(wanted.slope) || !match_sign('*'))) return kNowhere;
  if (at + 1 < text.size() && is_word(text[at + 1])) return kNowhere;
  if (!match_sign('x')) return kNowhere;
  if (wanted.constant == 0.0) return at;
  return match_sign(wanted.constant < 0.0 ? '-' : '+') && match_number(std::abs(wanted.constant)) ? at : kNowhere;
}

// Where the part at `at` and the blanks behind it end if it is text[from, to), an expression, with the values of its
// names, `operands` in their order, put in; npos if not. A value may stand in parentheses; one of two terms or factors
// must, unless it is a term itself.
inline std::size_t match_values_put_in(std::string_view text, std::size_t from, std::size_t to,
                                       const std::vector<Quantity>& operands, std::size_t at) {
  constexpr auto kNowhere = std::string_view::npos;
  std::size_t next = 0;
  char before = '(';
  for (from = skip_blanks(text, from); from < to; from = skip_blanks(text, from)) {
    at = skip_blanks(text, at);
    if (at == text.size()) return kNowhere;
    if (is_alpha(text[from])) {
      while (from < to && is_word(text[from])) ++from;
      const Quantity& operand = operands[next++];
      const bool is_grouped = text[at] == '(';
      const std::size_t behind = skip_blanks(text, from);
      const bool is_term = (before == '(' || before == '+') &&
                           (behind >= to || text[behind] == '+' || text[behind] == '-' || text[behind] == ')');
      if (!is_grouped && !is_term && (operand.slope != 0.0 || operand.constant < 0.0)) return kNowhere;
      at = match_value(text, at + (is_grouped ? 1 : 0), operand);
      if (at == kNowhere || (is_grouped && (at == text.size() || text[at++] != ')'))) return kNowhere;
      before = 'x';
    } else if (is_digit(text[from])) {
      double a = 0.0, b = 0.0;
      from = read_number(text, from, a);
      at = read_number(text, at, b);
      if (at == kNowhere || a != b) return kNowhere;
      before = 'x';
    } else {
      before = text[from++];
      if (text[at++] != before) return kNowhere;
    }
  }
  return skip_blanks(text, at);
}

// Either of them, if the part ends there.
inline std::size_t match_plain_part(std::string_view text, std::size_t at, const Quantity& wanted, std::size_t from,
                                    std::size_t to, const std::vector<Quantity>& operands) {
  const auto is_end = [&](std::size_t end) {
    return end != std::string_view::npos &&
           (end >= text.size() || text[end] == '=' || text[end] == ';' || text[end] == '.');
  };
  if (const std::size_t end = match_value(text, at, wanted); is_end(end)) return end;
  const std::size_t end = match_values_put_in(text, from, to, operands, at);
  return is_end(end) ? end : std::string_view::npos;
}

}  // namespace fastreason
