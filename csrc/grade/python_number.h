// Arithmetic as Python's eval does it, for text that a model wrote: exact integers, true and floor division, floats.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "grade/python_text.h"

namespace fastreason::python {

// What is known of the letters that stand for numbers, by Letter::index.
class LetterValues {
 public:
  void clear() { known_ = 0; }
  bool has(int letter) const { return known_ >> letter & 1; }
  double operator[](int letter) const { return values_[static_cast<std::size_t>(letter)]; }
  void set(int letter, double value) {
    known_ |= std::uint64_t{1} << letter;
    values_[static_cast<std::size_t>(letter)] = value;
  }

 private:
  std::uint64_t known_ = 0;
  std::array<double, kNumLetters> values_;
};

// float(eval(text)) after every stand-alone letter of the trimmed `text` was replaced by str() of its value. False
// where that raises an exception: other characters than digits, + - * / ( ) and blanks, an unknown letter, a value that
// str writes with an exponent, 007, 2(3), a line break outside of parentheses, division by zero, 201 nested
// parentheses... Refused too, though Python computes them: powers, and integers of 2**1024 and more (they fit no
// float).
bool evaluate(std::string_view text, const LetterValues& values, double& result);

// float(text) of a number written as [-+]?\d+(\.\d+)?, correctly rounded, inf where it is too large.
double to_float(std::string_view text);

// The length in bytes of the number [-+]?\d+(\.\d+)? at the start of `text`, 0 if there is none.
std::size_t number_length(std::string_view text);

// The last of the numbers that re.findall finds from left to right, or nothing: an empty view.
std::string_view last_number(std::string_view text);

}  // namespace fastreason::python
