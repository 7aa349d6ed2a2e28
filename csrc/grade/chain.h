// A chain of equalities behind a definition: "A + B" = "2 + 3" = "5".
#pragma once

#include "grade/expression.h"

namespace fastreason {

// Whether each part of a chain follows: it has the value of the definition, and it is either the definition with its
// values put in or the value itself. So "2 + 2" turned into "2 * 2" does not pass, though the value is the same.
class Chain {
 public:
  // `definition` with the values put in. One from a variable without value says nothing of the values; the fault lies
  // where that variable is.
  Chain(const Written& definition, bool has_values) : wanted_(definition), has_values_(has_values) {}

  // `is_reduced`: whether the part is known to be a step of working the expression out.
  bool follows(const Written& part, bool is_reduced = false) const {
    if (!has_values_) return true;
    if (!same_form(part.quantity, wanted_.quantity)) return false;
    return is_reduced || part.shape.is_atom() || part.shape.hash() == wanted_.shape.hash() ||
           part.shape.hash() == shape_of(part.quantity).hash();
  }

 private:
  Written wanted_;
  bool has_values_;
};

}  // namespace fastreason
