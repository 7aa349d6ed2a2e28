#include "grade/reduction.h"

#include <algorithm>
#include <numeric>

namespace fastreason {

bool Reduction::read(std::string_view text) {
  std::size_t at = 0;
  const auto next = [&](char c) {
    at = skip_blanks(text, at);
    const bool found = at < text.size() && text[at] == c;
    at += found ? 1 : 0;
    return found;
  };
  const auto number = [&](double& value) {
    at = skip_blanks(text, at);
    const bool negative = at < text.size() && text[at] == '-';
    const std::size_t end = read_number(text, at + (negative ? 1 : 0), value);
    if (end == std::string_view::npos) return false;
    at = end;
    if (negative) value = -value;
    return true;
  };
  terms_.clear();
  double term = 0.0;
  bool open = next('(');
  has_factor_ = false;
  if (!number(term)) return false;
  if (!open && next('*')) {
    has_factor_ = true;
    factor_ = term;
    open = next('(');
    if (!number(term)) return false;
  }
  terms_.push_back(term);
  for (bool minus = false; (minus = next('-')) || next('+');) {
    if (!number(term)) return false;
    terms_.push_back(minus ? -term : term);
  }
  if (open && !next(')')) return false;
  // "2 * 3 + 4" has no form: its first term is a product
  return skip_blanks(text, at) == text.size() && (open || !has_factor_ || terms_.size() == 1);
}

bool Reduction::follows(const Reduction& before) const {
  if (terms_.empty() || has_factor_ != before.has_factor_ || (has_factor_ && factor_ != before.factor_)) return false;
  if (terms_.size() >= before.terms_.size()) return false;
  const auto rest = before.terms_.end() - static_cast<std::ptrdiff_t>(terms_.size() - 1);
  return std::accumulate(before.terms_.begin(), rest, 0.0) == terms_[0] &&
         std::equal(rest, before.terms_.end(), terms_.begin() + 1);
}

}  // namespace fastreason
