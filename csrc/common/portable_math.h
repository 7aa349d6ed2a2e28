// exp and log from IEEE additions, multiplications and divisions alone: the same bits on every platform.
//
// libm may differ in the last bit between platforms, and a draw that compares against such a number would then differ
// too. The build sets -ffp-contract=off, so that no compiler fuses a multiply and an add here.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/device.h"

namespace fastreason {

// IEEE 754 requires a correctly rounded square root, so this one is portable already.
FASTREASON_HD inline double square_root(double x) { return std::sqrt(x); }

// exp(x) for |x| <= 700, relative error below 1e-15.
FASTREASON_HD inline double exponential(double x) {
  constexpr double kLog2E = 1.4426950408889634, kLn2High = 0.6931471803691238, kLn2Low = 1.9082149292705877e-10;
  const double k = std::floor(x * kLog2E + 0.5);
  const double r = (x - k * kLn2High) - k * kLn2Low;  // |r| <= ln(2) / 2
  constexpr double kInverseFactorial[] = {
      1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
      1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
  double sum = 0.0;
  for (int n = 13; n >= 0; --n) sum = sum * r + kInverseFactorial[n];
  const auto exponent = static_cast<std::uint64_t>(static_cast<std::int64_t>(k) + 1023);
  return sum * bit_copy<double>(exponent << 52);
}

// ln(x) for normal x > 0, absolute error below 1e-15 plus one rounding.
FASTREASON_HD inline double natural_log(double x) {
  constexpr double kLn2 = 0.6931471805599453, kSqrt2 = 1.4142135623730951;
  auto bits = bit_copy<std::uint64_t>(x);
  auto exponent = static_cast<std::int64_t>(bits >> 52) - 1023;
  bits = (bits & 0x000FFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
  double mantissa = bit_copy<double>(bits);  // in [1, 2)
  if (mantissa > kSqrt2) {
    mantissa *= 0.5;
    ++exponent;
  }
  // ln(m) = 2 artanh(f), f = (m - 1) / (m + 1), |f| <= 0.172: eleven odd terms reach 1e-17
  const double f = (mantissa - 1.0) / (mantissa + 1.0), f2 = f * f;
  constexpr double kInverseOdd[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                                    1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
  double sum = 0.0;
  for (int i = 10; i >= 0; --i) sum = sum * f2 + kInverseOdd[i];
  return 2.0 * f * sum + static_cast<double>(exponent) * kLn2;
}

}  // namespace fastreason
