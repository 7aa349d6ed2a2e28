#include "grade/python_number.h"

#include <charconv>
#include <cmath>
#include <string>
#include <system_error>

#include "grade/wide_integer.h"

namespace fastreason::python {

namespace {

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

constexpr std::size_t kMaxDigits = 4300;  // of an integer that Python reads

// int or float.
class Number {
 public:
  bool read_integer(std::string_view digits) {
    is_float_ = false;
    return integer_.parse(digits);
  }
  void set_float(double value) {
    is_float_ = true;
    float_ = value;
  }
  void negate() {
    if (is_float_)
      float_ = -float_;
    else
      integer_.negate();
  }
  bool to_float() {
    if (is_float_) return true;
    is_float_ = true;
    return integer_.to_double(float_);
  }
  double value() const { return float_; }

  bool add(Number& other) {
    if (!is_float_ && !other.is_float_) return integer_.add(other.integer_);
    if (!to_float() || !other.to_float()) return false;
    float_ += other.float_;
    return true;
  }
  // Not the sum with the negative: -0.0 - 0 is -0.0.
  bool subtract(Number& other) {
    if (!is_float_ && !other.is_float_) {
      other.negate();
      return integer_.add(other.integer_);
    }
    if (!to_float() || !other.to_float()) return false;
    float_ -= other.float_;
    return true;
  }
  bool multiply(Number& other) {
    if (!is_float_ && !other.is_float_) return integer_.multiply(other.integer_);
    if (!to_float() || !other.to_float()) return false;
    float_ *= other.float_;
    return true;
  }
  bool divide(Number& other) {
    if (!is_float_ && !other.is_float_) {
      is_float_ = true;
      return integer_.true_divide(other.integer_, float_);
    }
    if (!to_float() || !other.to_float() || other.float_ == 0.0) return false;
    float_ /= other.float_;
    return true;
  }
  bool floor_divide(Number& other) {
    if (!is_float_ && !other.is_float_) return integer_.floor_divide(other.integer_);
    if (!to_float() || !other.to_float() || other.float_ == 0.0) return false;
    // the quotient less the remainder is close to a whole number, which rounding must not miss
    const double divisor = other.float_;
    double rest = std::fmod(float_, divisor), quotient = (float_ - rest) / divisor;
    if (rest != 0.0 && (divisor < 0) != (rest < 0)) quotient -= 1.0;
    const double exact = float_ / divisor;
    float_ = quotient == 0.0 ? std::copysign(0.0, exact) : std::floor(quotient);
    if (quotient - float_ > 0.5) float_ += 1.0;
    return true;
  }

 private:
  bool is_float_ = false;
  double float_ = 0.0;
  WideInteger integer_;
};

// Recursive descent. Every failure is final: Python raises an exception, whatever comes behind.
class Evaluator {
 public:
  Evaluator(std::string_view text, const LetterValues& values) : text_(text), values_(values) {}

  bool evaluate(double& result) {
    Number number;
    if (!sum(number) || !skip_blanks() || at_ != text_.size() || !number.to_float()) return false;
    result = number.value();
    return true;
  }

 private:
  bool sum(Number& left) {
    if (!product(left)) return false;
    while (const char sign = next_of_sum()) {
      Number right;
      if (!product(right)) return false;
      if (!(sign == '-' ? left.subtract(right) : left.add(right))) return false;
    }
    return true;
  }

  bool product(Number& left) {
    if (!factor(left)) return false;
    while (const char sign = next_of('*', '/')) {
      const bool doubled = at_ < text_.size() && text_[at_] == sign;
      if (doubled && sign == '*') return false;
      at_ += doubled ? 1 : 0;
      Number right;
      if (!factor(right)) return false;
      if (!(sign == '*' ? left.multiply(right) : doubled ? left.floor_divide(right) : left.divide(right))) return false;
    }
    return true;
  }

  bool factor(Number& number) {
    bool negative = false;
    while (const char sign = next_of('+', '-')) negative ^= sign == '-';
    if (!atom(number)) return false;
    if (negative) number.negate();
    return true;
  }

  bool atom(Number& number) {
    if (!skip_blanks() || at_ == text_.size()) return false;
    const char c = text_[at_];
    if (is_ascii_digit(c)) return integer(number);
    if (is_ascii_letter(c)) return letter(number);
    if (c != '(' || depth_ == kMaxDepth) return false;
    ++at_;
    ++depth_;
    if (!sum(number) || !next_of(')', ')')) return false;
    --depth_;
    return true;
  }

  bool integer(Number& number) {
    const std::size_t begin = at_;
    while (at_ < text_.size() && is_ascii_digit(text_[at_])) ++at_;
    const std::string_view digits = text_.substr(begin, at_ - begin);
    if (digits.size() > kMaxDigits) return false;
    const bool zeros = digits.find_first_not_of('0') == std::string_view::npos;
    return (zeros || digits[0] != '0') && number.read_integer(digits);
  }

  bool letter(Number& number) {
    const char c = text_[at_++];
    // no word character on either side; others than these were no token of an expression anyway
    const auto joined = [&](std::size_t at) { return is_ascii_letter(text_[at]) || is_ascii_digit(text_[at]); };
    if ((at_ >= 2 && joined(at_ - 2)) || (at_ < text_.size() && joined(at_))) return false;
    const int index = ascii_letter_index(c);
    if (!values_.has(index)) return false;
    const double value = values_[index], size = std::abs(value);
    // str writes 1e+16, 1e-05, inf and nan with letters
    if (value != 0.0 && !(size >= 1e-4 && size < 1e16)) return false;
    number.set_float(sign_taken_ ? size : value);
    sign_taken_ = false;
    return true;
  }

  // A sign between two products; that of a letter's value may be it: "2 x" of x = -3 is "2 -3.0".
  char next_of_sum() {
    if (const char sign = next_of('+', '-')) return sign;
    if (at_ == text_.size() || !is_ascii_letter(text_[at_])) return '\0';
    const int index = ascii_letter_index(text_[at_]);
    sign_taken_ = values_.has(index) && std::signbit(values_[index]);
    return sign_taken_ ? '-' : '\0';
  }

  // False at a blank that Python's tokenizer refuses. Line breaks are blanks within parentheses only.
  bool skip_blanks() {
    for (; at_ < text_.size() && is_blank(text_[at_]); ++at_) {
      const char c = text_[at_];
      const bool accepted = c == ' ' || c == '\t' || c == '\f' || (depth_ > 0 && (c == '\n' || c == '\r'));
      if (!accepted) return false;
    }
    return true;
  }

  // Consumes and returns a or b if one comes next, else returns 0.
  char next_of(char a, char b) {
    if (!skip_blanks() || at_ == text_.size() || (text_[at_] != a && text_[at_] != b)) return '\0';
    return text_[at_++];
  }

  static constexpr int kMaxDepth = 200;
  std::string_view text_;
  const LetterValues& values_;
  std::size_t at_ = 0;
  int depth_ = 0;
  bool sign_taken_ = false;  // the value of the next letter counts without its sign
};

// The run of digits at `at`: where it ends.
std::size_t skip_digits(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Utf8Char c = char_at(text, at);
    if (digit_value(c.code) < 0) break;
    at += c.size;
  }
  return at;
}

// The run of digits that ends at `at`: where it begins.
std::size_t skip_digits_back(std::string_view text, std::size_t at) {
  while (at > 0) {
    const std::size_t before = char_before(text, at);
    if (digit_value(char_at(text, before).code) < 0) break;
    at = before;
  }
  return at;
}

// ASCII digits for all others.
void write_ascii(std::string_view number, std::string& out) {
  for (std::size_t at = 0; at < number.size();) {
    const Utf8Char c = char_at(number, at);
    out.push_back(c.size == 1 ? number[at] : static_cast<char>('0' + digit_value(c.code)));
    at += c.size;
  }
}

double ascii_to_float(std::string_view text) {
  constexpr std::size_t kExactDigits = 15;
  double value = 0.0;
  if (text.size() <= kExactDigits && text.find('.') == std::string_view::npos) {
    for (const char c : text) value = 10.0 * value + (c - '0');
    return value;
  }
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc::result_out_of_range) return value;
  const bool large = text.substr(0, text.find('.')).find_first_not_of('0') != std::string_view::npos;
  return large ? HUGE_VAL : 0.0;
}

}  // namespace

bool evaluate(std::string_view text, const LetterValues& values, double& result) {
  return Evaluator(text, values).evaluate(result);
}

double to_float(std::string_view text) {
  const bool negative = text[0] == '-';
  if (negative || text[0] == '+') text.remove_prefix(1);
  double value;
  if (text.find_first_not_of("0123456789.") == std::string_view::npos) {
    value = ascii_to_float(text);
  } else {
    std::string ascii;
    write_ascii(text, ascii);
    value = ascii_to_float(ascii);
  }
  return negative ? -value : value;
}

std::size_t number_length(std::string_view text) {
  const std::size_t begin = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  const std::size_t end = skip_digits(text, begin);
  if (end == begin) return 0;
  if (end == text.size() || text[end] != '.') return end;
  const std::size_t fraction_end = skip_digits(text, end + 1);
  return fraction_end > end + 1 ? fraction_end : end;
}

std::string_view last_number(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    const std::size_t before = char_before(text, end);
    if (digit_value(char_at(text, before).code) >= 0) break;
    end = before;
  }
  if (end == 0) return {};
  // In a chain of runs of digits with points between them, every second point is a decimal point.
  std::size_t begin = skip_digits_back(text, end), previous = begin;
  const std::size_t last = begin;
  bool odd = true;
  for (; begin > 0 && text[begin - 1] == '.'; odd = !odd) {
    const std::size_t further = skip_digits_back(text, begin - 1);
    if (further == begin - 1) break;
    if (begin == last) previous = further;
    begin = further;
  }
  begin = odd ? last : previous;
  if (begin > 0 && (text[begin - 1] == '-' || text[begin - 1] == '+')) --begin;
  return text.substr(begin, end - begin);
}

}  // namespace fastreason::python
