// Numbers as a model writes them: whole tokens or nothing, never an error. docs/grading.md has the table of what is
// one.
#pragma once

#include <cstddef>
#include <string_view>

#include "grade/characters.h"

namespace fastreason {

// Where the unsigned number at `at` ends; npos if none is there. A number is an integer of ASCII digits that no letter,
// digit of another script or fraction goes on from. One of more than 15 digits, leading zeros aside, is none, so that
// no two numbers are taken for equal that differ.
inline std::size_t read_number(std::string_view text, std::size_t at, double& value) {
  constexpr double kLimit = 1e15;
  const std::size_t begin = at;
  double result = 0.0;
  for (; at < text.size() && is_digit(text[at]); ++at) result = 10.0 * result + (text[at] - '0');
  if (at == begin || result >= kLimit) return std::string_view::npos;
  if (at < text.size()) {
    const char next = text[at];
    if (is_word(next) || static_cast<unsigned char>(next) >= 0x80) return std::string_view::npos;
    if (next == '.' && at + 1 < text.size() && is_digit(text[at + 1])) return std::string_view::npos;
  }
  value = result;
  return at;
}

}  // namespace fastreason
