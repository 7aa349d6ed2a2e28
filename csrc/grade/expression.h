// Arithmetic as a model writes it: integers, + - * /, parentheses, names. Nothing else, and never an error.
//
// One grammar, two kinds of operands: a Quantity is what an expression is worth, a Written also how it is made.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <utility>

#include "common/hash.h"
#include "grade/number.h"

namespace fastreason {

// What an expression is worth: `value` with the unknown x put at the answer, and slope * x + constant as it stands, in
// integers up to 2**53 that are exact on the way too. A slope or constant that is no number: there is no such form (a
// square, a quotient that is no integer, an undefined name).
struct Quantity {
  double value = 0.0, slope = 0.0, constant = 0.0;

  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  static Quantity number(double n) { return {n, 0.0, n}; }
  static Quantity unknown(double answer) { return {answer, 1.0, 0.0}; }
  static Quantity undefined() { return {kNone, kNone, kNone}; }

  friend Quantity operator-(const Quantity& a) { return {-a.value, -a.slope, -a.constant}; }
  friend Quantity operator+(const Quantity& a, const Quantity& b) {
    return {a.value + b.value, exact(a.slope + b.slope), exact(a.constant + b.constant)};
  }
  friend Quantity operator-(const Quantity& a, const Quantity& b) { return a + -b; }
  friend Quantity operator*(const Quantity& a, const Quantity& b) {
    const double slope = exact(exact(a.slope * b.constant) + exact(a.constant * b.slope));
    return {a.value * b.value, a.slope * b.slope == 0.0 ? slope : kNone, exact(a.constant * b.constant)};
  }
  friend Quantity operator/(const Quantity& a, const Quantity& b) {
    return {a.value / b.value, b.slope == 0.0 ? quotient(a.slope, b.constant) : kNone,
            quotient(a.constant, b.constant)};
  }
  bool is_zero() const { return value == 0.0; }
  bool has_form() const { return slope == slope && constant == constant; }

  // Whether both print the same.
  friend bool same_form(const Quantity& a, const Quantity& b) { return a.slope == b.slope && a.constant == b.constant; }

 private:
  static double exact(double n) {
    constexpr double kExact = 9007199254740991.0;
    return std::abs(n) <= kExact ? n : kNone;
  }
  static double quotient(double n, double by) { return std::trunc(n / by) * by == n ? n / by : kNone; }
};

// How an expression is made, up to the order of terms and factors and the parentheses among them: sums and products are
// multisets, kept as sums of 64-bit hashes. Two expressions that differ have the same hash with probability 2**-64.
class Shape {
 public:
  Shape() = default;

  static Shape number(double n) { return Shape(kAtom, mix64(std::bit_cast<std::uint64_t>(n)), 0); }
  static Shape name(int id) { return Shape(kAtom, mix64(kNameTag + static_cast<std::uint64_t>(id)), 0); }
  static Shape unknown() { return Shape(kAtom, mix64(kNameTag - 1), 0); }

  // One number or name, perhaps with a sign.
  bool is_atom() const { return kind_ == kAtom; }

  std::uint64_t hash() const {
    const std::uint64_t whole =
        kind_ == kAtom ? first_
                       : mix64(first_ + std::rotl(second_, 31) + (kind_ == kSum ? 0x51ED270Bull : 0xA5A5F00Dull));
    return negative_ ? mix64(~whole) : whole;
  }

  friend Shape operator-(const Shape& a) {
    Shape result = a;
    if (a.kind_ == kSum)
      std::swap(result.first_, result.second_);
    else
      result.negative_ = !a.negative_;
    return result;
  }
  friend Shape operator+(const Shape& a, const Shape& b) {
    const Shape x = a.as_sum(), y = b.as_sum();
    return Shape(kSum, x.first_ + y.first_, x.second_ + y.second_);
  }
  friend Shape operator-(const Shape& a, const Shape& b) { return a + -b; }
  friend Shape operator*(const Shape& a, const Shape& b) {
    const Shape x = a.as_product(), y = b.as_product();
    return Shape(kProduct, x.first_ + y.first_, x.second_ + y.second_, a.negative_ != b.negative_);
  }
  friend Shape operator/(const Shape& a, const Shape& b) {
    const Shape x = a.as_product(), y = b.as_product();
    return Shape(kProduct, x.first_ + y.second_, x.second_ + y.first_, a.negative_ != b.negative_);
  }

 private:
  enum Kind : std::uint8_t { kAtom, kSum, kProduct };
  static constexpr std::uint64_t kNameTag = 0xF00DF00D00000000ull;

  Shape(Kind kind, std::uint64_t first, std::uint64_t second, bool negative = false)
      : kind_(kind), negative_(negative), first_(first), second_(second) {}

  // Without its sign, which the caller looks after.
  Shape as_term(Kind kind) const {
    Shape positive = *this;
    positive.negative_ = false;
    return Shape(kind, mix64(positive.hash() + kind), 0);
  }
  Shape as_sum() const {
    if (kind_ == kSum) return *this;
    const Shape term = as_term(kSum);
    return negative_ ? -term : term;
  }
  Shape as_product() const { return kind_ == kProduct ? *this : as_term(kProduct); }

  Kind kind_ = kAtom;
  // Of an atom or a product, so that (-2) * x is -(2 * x). A sum has none.
  bool negative_ = false;
  // The second hash of a sum holds the terms that are subtracted, that of a product the factors it is divided by.
  std::uint64_t first_ = 0, second_ = 0;
};

// The shape that a quantity has when it is written out: "7", "-3", "2*x + 3".
inline Shape shape_of(const Quantity& a) {
  const auto number = [](double n) { return n < 0.0 ? -Shape::number(-n) : Shape::number(n); };
  if (a.slope == 0.0) return number(a.constant);
  const Shape x =
      a.slope == 1.0 || a.slope == -1.0 ? Shape::unknown() : Shape::number(std::abs(a.slope)) * Shape::unknown();
  const Shape multiple = a.slope < 0.0 ? -x : x;
  return a.constant == 0.0 ? multiple : multiple + number(a.constant);
}

// What is written: worth and make. Names count as themselves or as the values put in for them, as whoever looks them up
// decides.
struct Written {
  Quantity quantity;
  Shape shape;

  static Written number(double n) { return {Quantity::number(n), Shape::number(n)}; }
  static Written value(const Quantity& a) { return {a, shape_of(a)}; }
  friend Written operator-(const Written& a) { return {-a.quantity, -a.shape}; }
  friend Written operator+(const Written& a, const Written& b) { return {a.quantity + b.quantity, a.shape + b.shape}; }
  friend Written operator-(const Written& a, const Written& b) { return {a.quantity - b.quantity, a.shape - b.shape}; }
  friend Written operator*(const Written& a, const Written& b) { return {a.quantity * b.quantity, a.shape * b.shape}; }
  friend Written operator/(const Written& a, const Written& b) { return {a.quantity / b.quantity, a.shape / b.shape}; }
  bool is_zero() const { return quantity.is_zero(); }
};

// Recursive descent over + - * / ( ), integers and names; `lookup(name, operand)` says whether a name means anything.
// Fails on anything else: powers, two signs in a row, a number that is none, a number or name right behind another, a
// division by zero, more than 64 nested parentheses.
template <class Operand, class Lookup>
class ExpressionReader {
 public:
  ExpressionReader(std::string_view text, std::size_t at, Lookup& lookup) : text_(text), at_(at), lookup_(lookup) {}

  // Parses the longest prefix that is one expression.
  bool read(Operand& result) { return sum(result); }

  // Behind the expression and the blanks after it.
  std::size_t at() const { return at_; }
  bool at_end() const { return at_ == text_.size(); }

 private:
  bool sum(Operand& result) {
    if (!product(result)) return false;
    while (const char sign = next_of('+', '-')) {
      Operand right;
      if (!product(right)) return false;
      result = sign == '+' ? result + right : result - right;
    }
    return true;
  }

  bool product(Operand& result) {
    if (!factor(result)) return false;
    while (const char sign = next_of('*', '/')) {
      Operand right;
      if (!factor(right) || (sign == '/' && right.is_zero())) return false;
      result = sign == '*' ? result * right : result / right;
    }
    return true;
  }

  bool factor(Operand& result) {
    const bool negative = next_of('+', '-') == '-';
    at_ = skip_blanks(text_, at_);
    if (!atom(result)) return false;
    if (negative) result = -result;
    return true;
  }

  bool atom(Operand& result) {
    // the blanks are skipped
    if (at_ == text_.size()) return false;
    const char c = text_[at_];
    if (is_digit(c)) {
      double value = 0.0;
      const std::size_t end = read_number(text_, at_, value);
      if (end == std::string_view::npos) return false;
      at_ = end;
      result = Operand::number(value);
      return true;
    }
    if (is_alpha(c)) {
      const std::size_t begin = at_++;
      while (at_ < text_.size() && is_word(text_[at_])) ++at_;
      return lookup_(text_.substr(begin, at_ - begin), result);
    }
    if (c != '(' || depth_ == 64) return false;
    ++at_;
    ++depth_;
    if (!sum(result) || !next_of(')', ')')) return false;
    --depth_;
    return true;
  }

  // Skips blanks, then consumes and returns a or b if one comes next, else returns 0.
  char next_of(char a, char b) {
    at_ = skip_blanks(text_, at_);
    if (at_ == text_.size() || (text_[at_] != a && text_[at_] != b)) return '\0';
    return text_[at_++];
  }

  std::string_view text_;
  std::size_t at_;
  Lookup& lookup_;
  int depth_ = 0;
};

// The value of a text that is one expression from end to end.
template <class Lookup>
bool evaluate(std::string_view text, Lookup& lookup, Quantity& result) {
  ExpressionReader<Quantity, Lookup> reader(text, 0, lookup);
  return reader.read(result) && reader.at_end();
}

}  // namespace fastreason
