// Where a step of the published style begins: "Define NAME as V;".
#pragma once

#include <cstddef>
#include <string_view>

namespace fastreason {

// From "Define" to behind the semicolon.
struct StepHeader {
  std::size_t begin = 0, end = 0;
  std::size_t name_begin = 0;
  std::string_view name;  // as it stands, with outer blanks
  char letter = 0;
};

// The first header at `from` or behind it, as the released scorer's pattern finds it: "Define" in any case, the
// shortest possible name, "as" or "a", any words of letters alone, one letter, a semicolon. A header without its letter
// is swallowed by the next one, whose name is then what follows the last "Define".
bool find_step_header(std::string_view text, std::size_t from, StepHeader& header);

// Whether right at `at` stands " Define NAME as V;" to the byte, with a name that can be read in one way only. Then
// find_step_header would find the same.
bool is_plain_step_header(std::string_view text, std::size_t at, StepHeader& header);

}  // namespace fastreason
