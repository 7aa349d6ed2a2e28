// A small evaluator for model-written arithmetic: integers, + - * /, parentheses, names. Nothing else, and never an
// error.
#pragma once

#include <cstdint>
#include <string_view>

namespace fastreason {

inline bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
inline bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string_view trim(std::string_view text);

// The decimal number at the start of `text`, with an optional sign right before it and, if `decimals`, a fraction.
// Returns its length in bytes, 0 if there is none. Too many digits give a large value, not an error.
std::size_t read_number(std::string_view text, bool decimals, double& value);

// The last integer anywhere in `text`, with a sign if one stands right before it.
bool last_number(std::string_view text, double& value);

// Recursive descent over + - * / ( ), integers and names; `lookup(name, value)` says whether a name has a value.
// False on anything else: other characters, powers, division by zero, more than 64 nested parentheses.
template <class Lookup>
class ExpressionReader {
 public:
  ExpressionReader(std::string_view text, Lookup& lookup) : text_(text), lookup_(lookup) {}

  bool evaluate(double& value) { return sum(value) && (skip_blanks(), at_ == text_.size()); }

 private:
  bool sum(double& value) {
    if (!product(value)) return false;
    while (const char sign = next_of('+', '-')) {
      double right;
      if (!product(right)) return false;
      value = sign == '+' ? value + right : value - right;
    }
    return true;
  }

  bool product(double& value) {
    if (!factor(value)) return false;
    while (const char sign = next_of('*', '/')) {
      double right;
      if (!factor(right) || (sign == '/' && right == 0.0)) return false;
      value = sign == '*' ? value * right : value / right;
    }
    return true;
  }

  bool factor(double& value) {
    bool negative = false;
    while (const char sign = next_of('+', '-')) negative ^= sign == '-';
    if (!atom(value)) return false;
    if (negative) value = -value;
    return true;
  }

  bool atom(double& value) {
    skip_blanks();
    if (at_ == text_.size()) return false;
    const char c = text_[at_];
    if (is_digit(c)) {
      at_ += read_number(text_.substr(at_), false, value);
      return true;
    }
    if (is_alpha(c)) {
      const std::size_t begin = at_;
      while (at_ < text_.size() && is_alpha(text_[at_])) ++at_;
      return lookup_(text_.substr(begin, at_ - begin), value);
    }
    if (c != '(' || depth_ == 64) return false;
    ++at_;
    ++depth_;
    if (!sum(value) || !next_of(')', ')')) return false;
    --depth_;
    return true;
  }

  void skip_blanks() {
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
  }

  // Consumes and returns a or b if one comes next, else returns 0.
  char next_of(char a, char b) {
    skip_blanks();
    if (at_ == text_.size() || (text_[at_] != a && text_[at_] != b)) return '\0';
    return text_[at_++];
  }

  std::string_view text_;
  Lookup& lookup_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace fastreason
