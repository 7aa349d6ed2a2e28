// The arithmetic of sampling: exact on integers, and on float32 by operations that IEEE 754 defines to the bit. The
// compiler must not contract a product and a sum (-ffp-contract=off, --fmad=false); kernels/sample.py computes the same
// in torch.
#pragma once

#include <cstdint>

#include "common/device.h"
#include "common/portable_math.h"

namespace fastreason {

// exp(x) for x <= 0, relative error below 1e-7; what is below -87 counts as -87.
FASTREASON_INLINE float exp_nonpositive(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693138123f, kLn2Low = 9.05800061e-06f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: its sum with |y| < 2^22 has y as an integer in its low bits
  x = x > -87.0f ? x : -87.0f;
  const float shifted = x * kLog2E + kRound;
  const float k = shifted - kRound;
  const float r = (x - k * kLn2High) - k * kLn2Low;  // |r| <= ln(2) / 2, and k * kLn2High is exact
  float sum = static_cast<float>(1.0 / 5040);
  sum = sum * r + static_cast<float>(1.0 / 720);
  sum = sum * r + static_cast<float>(1.0 / 120);
  sum = sum * r + static_cast<float>(1.0 / 24);
  sum = sum * r + static_cast<float>(1.0 / 6);
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const std::int32_t exponent = bit_copy<std::int32_t>(shifted) - bit_copy<std::int32_t>(kRound);
  return sum * bit_copy<float>((exponent + 127) << 23);
}

// exp(x) for x <= 0 in units of 2^-40, rounded to the nearest. Sums of up to 2^23 weights are exact in any order.
FASTREASON_INLINE std::uint64_t weight(float x) {
  constexpr double kRound = 6144.0;  // a double in [2^12, 2^13) is a multiple of 2^-40
  return bit_copy<std::uint64_t>(static_cast<double>(exp_nonpositive(x)) + kRound) - bit_copy<std::uint64_t>(kRound);
}

// Mass of a tile, relative to the maximum of its row; `scale` is exp of the difference of the two maxima.
FASTREASON_INLINE std::uint64_t scaled_mass(std::uint64_t mass, float scale) {
  return static_cast<std::uint64_t>(rint(static_cast<double>(mass) * static_cast<double>(scale)));
}

// Back: where in the tile's own units the rest `rest` of a draw lies.
FASTREASON_INLINE std::uint64_t unscaled_target(std::uint64_t rest, float scale, std::uint64_t mass) {
  const auto target = static_cast<std::uint64_t>(floor(static_cast<double>(rest) / static_cast<double>(scale)));
  return target < mass ? target : mass - 1;
}

// floor(u * mass), exactly, of u in (0, 1) that is a multiple of 2^-25.
FASTREASON_INLINE std::uint64_t draw_target(float u, std::uint64_t mass) {
  const auto numerator = static_cast<std::uint64_t>(static_cast<double>(u) * 0x1p25);
  const std::uint64_t high = mass >> 25, low = mass & ((1u << 25) - 1);
  return numerator * high + ((numerator * low) >> 25);
}

// The fewest units that hold a share of a mass.
FASTREASON_INLINE std::uint64_t needed_mass(double share, std::uint64_t mass) {
  const auto needed = static_cast<std::uint64_t>(ceil(static_cast<double>(mass) * share));
  return needed < mass ? needed : mass;
}

// Integers in the order of the floats (0 and -0 are one), none of them 0; and back.
FASTREASON_INLINE std::uint32_t order_key(float x) {
  const auto bits = bit_copy<std::uint32_t>(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

FASTREASON_INLINE float from_order_key(std::uint32_t key) {
  return bit_copy<float>(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

// Log-probability of what lies x <= 0 below the maximum.
FASTREASON_INLINE float log_probability(float x, std::uint64_t mass) {
  return static_cast<float>(static_cast<double>(x) - natural_log(static_cast<double>(mass) * 0x1p-40));
}

}  // namespace fastreason
