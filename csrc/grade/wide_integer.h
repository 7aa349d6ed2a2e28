// Exact integers below 2**1024 in magnitude: every one that a double can hold.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace fastreason {

class WideInteger {
 public:
  WideInteger() {}  // 0; limbs not in use hold anything

  // Of decimal digits. False if 2**1024 or more.
  bool parse(std::string_view digits);

  bool is_zero() const { return size_ == 0; }
  void negate() { negative_ = !negative_ && size_ > 0; }

  // Each is false, with *this undefined, where the result is 2**1024 or more in magnitude or the divisor is 0.
  bool add(const WideInteger& other);
  bool multiply(const WideInteger& other);
  bool floor_divide(const WideInteger& other);  // towards minus infinity

  // The nearest double, halves to even, of this and of this / other. False on overflow or for other = 0.
  bool to_double(double& value) const;
  bool true_divide(const WideInteger& other, double& value) const;

 private:
  static constexpr int kMaxLimbs = 32;

  bool multiply_add(std::uint32_t factor, std::uint32_t addend);  // *this * factor + addend, of a positive *this
  bool add_magnitude(const WideInteger& other);
  void subtract_magnitude(const WideInteger& smaller);
  bool has_smaller_magnitude(const WideInteger& other) const;
  int num_bits() const;
  bool divide(const std::uint32_t* dividend, int size, std::uint32_t* quotient) const;
  void drop_zeros();

  int size_ = 0;  // limbs in use, lowest first; the last of them is not 0
  bool negative_ = false;
  std::array<std::uint32_t, kMaxLimbs + 1> limbs_;  // with one to spare for the result that is too large
};

}  // namespace fastreason
