#include "grade/wide_integer.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fastreason {

namespace {

// The nearest double of bits * 2**exponent, for a `bits` whose highest bit is set and whose lowest bit is also set if
// anything but zeros was cut off below it. Inf on overflow; subnormal results are rounded once, like the others.
double round_to_double(std::uint64_t bits, int exponent) {
  const int dropped = std::max(64 - 53, -1074 - exponent);
  if (dropped >= 64) return 0.0;
  const std::uint64_t half = std::uint64_t{1} << (dropped - 1), rest = bits & (2 * half - 1);
  std::uint64_t kept = bits >> dropped;
  if (rest > half || (rest == half && (kept & 1))) ++kept;
  return std::ldexp(static_cast<double>(kept), exponent + dropped);
}

// The nearest double of (limbs + a positive rest below 1, if any) * 2**exponent.
double round_to_double(const std::uint32_t* limbs, int size, bool rest, int exponent) {
  while (size > 0 && limbs[size - 1] == 0) --size;
  if (size == 0) return 0.0;
  const auto limb = [&](int i) { return std::uint64_t{i >= 0 ? limbs[i] : 0}; };
  const int shift = std::countl_zero(limbs[size - 1]);
  const std::uint64_t third = limb(size - 3) << shift;
  const std::uint64_t bits = ((limb(size - 1) << 32 | limb(size - 2)) << shift) | third >> 32;
  rest |= (third & 0xFFFFFFFF) != 0;
  for (int i = size - 4; i >= 0 && !rest; --i) rest = limbs[i] != 0;
  return round_to_double(bits | (rest ? 1 : 0), exponent + 32 * (size - 2) - shift);
}

}  // namespace

bool WideInteger::parse(std::string_view digits) {
  size_ = 0;
  negative_ = false;
  std::uint32_t factor = 1, addend = 0;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    factor *= 10;
    addend = 10 * addend + static_cast<std::uint32_t>(digits[i] - '0');
    if (i + 1 < digits.size() && factor < 1'000'000'000) continue;
    if (!multiply_add(factor, addend)) return false;
    factor = 1;
    addend = 0;
  }
  return true;
}

bool WideInteger::multiply_add(std::uint32_t factor, std::uint32_t addend) {
  std::uint64_t carry = addend;
  for (int i = 0; i < size_; ++i) {
    carry += std::uint64_t{limbs_[static_cast<std::size_t>(i)]} * factor;
    limbs_[static_cast<std::size_t>(i)] = static_cast<std::uint32_t>(carry);
    carry >>= 32;
  }
  if (carry != 0) limbs_[static_cast<std::size_t>(size_++)] = static_cast<std::uint32_t>(carry);
  return size_ <= kMaxLimbs;
}

bool WideInteger::add(const WideInteger& other) {
  if (negative_ == other.negative_) return add_magnitude(other);
  if (!has_smaller_magnitude(other)) {
    subtract_magnitude(other);
    return true;
  }
  WideInteger larger = other;
  larger.subtract_magnitude(*this);
  *this = larger;
  return true;
}

bool WideInteger::add_magnitude(const WideInteger& other) {
  std::uint64_t carry = 0;
  const int size = std::max(size_, other.size_);
  for (int i = 0; i < size; ++i) {
    const auto at = static_cast<std::size_t>(i);
    carry += std::uint64_t{i < size_ ? limbs_[at] : 0} + (i < other.size_ ? other.limbs_[at] : 0);
    limbs_[at] = static_cast<std::uint32_t>(carry);
    carry >>= 32;
  }
  size_ = size;
  if (carry != 0) limbs_[static_cast<std::size_t>(size_++)] = 1;
  return size_ <= kMaxLimbs;
}

void WideInteger::subtract_magnitude(const WideInteger& smaller) {
  std::int64_t borrow = 0;
  for (int i = 0; i < size_; ++i) {
    const auto at = static_cast<std::size_t>(i);
    borrow += std::int64_t{limbs_[at]} - (i < smaller.size_ ? smaller.limbs_[at] : 0);
    limbs_[at] = static_cast<std::uint32_t>(borrow);
    borrow >>= 32;  // 0 or -1
  }
  drop_zeros();
}

bool WideInteger::multiply(const WideInteger& other) {
  std::array<std::uint32_t, 2 * kMaxLimbs> product{};
  for (int i = 0; i < size_; ++i) {
    std::uint64_t carry = 0;
    for (int j = 0; j < other.size_ || carry != 0; ++j) {
      std::uint32_t& limb = product[static_cast<std::size_t>(i + j)];
      const std::uint64_t right = j < other.size_ ? other.limbs_[static_cast<std::size_t>(j)] : 0;
      carry += limb + limbs_[static_cast<std::size_t>(i)] * right;
      limb = static_cast<std::uint32_t>(carry);
      carry >>= 32;
    }
  }
  int size = size_ + other.size_;
  while (size > 0 && product[static_cast<std::size_t>(size - 1)] == 0) --size;
  if (size > kMaxLimbs) return false;
  std::copy_n(product.begin(), size, limbs_.begin());
  size_ = size;
  negative_ = size > 0 && negative_ != other.negative_;
  return true;
}

bool WideInteger::floor_divide(const WideInteger& other) {
  if (other.is_zero()) return false;
  const bool negative = negative_ != other.negative_;
  const WideInteger dividend = *this;
  const bool rest = other.divide(dividend.limbs_.data(), size_, limbs_.data());
  drop_zeros();
  if (negative && rest) multiply_add(1, 1);
  negative_ = negative && size_ > 0;
  return true;
}

// quotient[0 .. size) = dividend / |*this|; whether there is a remainder. Bit by bit, as few texts come here.
bool WideInteger::divide(const std::uint32_t* dividend, int size, std::uint32_t* quotient) const {
  if (size_ == 1) {
    std::uint64_t rest = 0;
    for (int i = size - 1; i >= 0; --i) {
      rest = rest << 32 | dividend[i];
      quotient[i] = static_cast<std::uint32_t>(rest / limbs_[0]);
      rest %= limbs_[0];
    }
    return rest != 0;
  }
  WideInteger rest;
  std::fill_n(quotient, size, 0u);
  for (int bit = 32 * size - 1; bit >= 0; --bit) {
    rest.multiply_add(2, dividend[bit / 32] >> (bit % 32) & 1);  // below 2 * |*this|: there is a limb to spare
    if (rest.has_smaller_magnitude(*this)) continue;
    rest.subtract_magnitude(*this);
    quotient[bit / 32] |= 1u << (bit % 32);
  }
  return !rest.is_zero();
}

bool WideInteger::to_double(double& value) const {
  value = size_ == 1 ? limbs_[0] : round_to_double(limbs_.data(), size_, false, 0);
  if (negative_) value = -value;
  return std::isfinite(value);
}

bool WideInteger::true_divide(const WideInteger& other, double& value) const {
  if (other.is_zero()) return false;
  // shifted left by whole limbs until the quotient has 65 bits or more: enough to round from
  const int shift = std::max(0, (64 - num_bits() + other.num_bits()) / 32 + 1);
  std::array<std::uint32_t, 2 * kMaxLimbs + 3> dividend, quotient;
  std::fill_n(dividend.begin(), shift, 0u);
  std::copy_n(limbs_.begin(), size_, dividend.begin() + shift);
  const bool rest = other.divide(dividend.data(), size_ + shift, quotient.data());
  value = round_to_double(quotient.data(), size_ + shift, rest, -32 * shift);
  if (negative_ != other.negative_) value = -value;
  return std::isfinite(value);
}

bool WideInteger::has_smaller_magnitude(const WideInteger& other) const {
  if (size_ != other.size_) return size_ < other.size_;
  for (int i = size_ - 1; i >= 0; --i) {
    const auto at = static_cast<std::size_t>(i);
    if (limbs_[at] != other.limbs_[at]) return limbs_[at] < other.limbs_[at];
  }
  return false;
}

int WideInteger::num_bits() const {
  return size_ == 0 ? 0 : 32 * size_ - std::countl_zero(limbs_[static_cast<std::size_t>(size_ - 1)]);
}

void WideInteger::drop_zeros() {
  while (size_ > 0 && limbs_[static_cast<std::size_t>(size_ - 1)] == 0) --size_;
  negative_ = negative_ && size_ > 0;
}

}  // namespace fastreason
