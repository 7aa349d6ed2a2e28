// The end of a reverse solution: a linear equation in x, solved line by line.
#pragma once

#include <string_view>

#include "grade/expression.h"

namespace fastreason {

// The letter V of "We know V =" if that is at `at`, else 0.
inline char equation_letter(std::string_view text, std::size_t at) {
  const std::size_t letter = phrase_end(text, at, "We know ");
  if (letter == std::string_view::npos || letter >= text.size() || !is_alpha(text[letter])) return 0;
  const std::size_t equals = skip_blanks(text, letter + 1);
  return equals > letter + 1 && equals < text.size() && text[equals] == '=' ? text[letter] : '\0';
}

// How many bytes of `text` are, up to blanks, the format's
//
//   We know V = v, so we have P = v and we solve it through the following steps: Simplifying the equation: P = v. Move
//   all terms to one side: P - v = 0. Isolate the term with x: a*x = c. Divide both sides by a: x = c / a. Solution:
//   x = r.
//
// with P the form slope * x + constant of `left`, a and c what follows from it, and r = c / a = answer; 0 if it does
// not begin with that. `told` becomes v.
std::size_t check_solved_equation(std::string_view text, const Quantity& left, double answer, double& told);

}  // namespace fastreason
