// Working out "2 * ( 3 + 4 + 5 )" by "2 * ( 7 + 5 )" and "2 * 12".
#pragma once

#include <string_view>
#include <vector>

#include "grade/number.h"

namespace fastreason {

// A part of a chain as factor * ( term + term - term ), all of them numbers.
class Reduction {
 public:
  // False if the text has another form.
  bool read(std::string_view text);

  // Whether this is `before` with some of its first terms added up.
  bool follows(const Reduction& before) const;

 private:
  bool has_factor_ = false;
  double factor_ = 0.0;
  std::vector<double> terms_;
};

}  // namespace fastreason
