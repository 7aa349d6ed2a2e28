// Vectors of floats as wide as the instructions that a file is compiled for.
//
// Files of this folder that include this header are compiled once per instruction set (see kernels.h), so everything
// here has internal linkage, and nothing of the standard library is used that the linker could share between them.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"

namespace fastreason {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(4 * kLanes)));
using IntVec = std::int32_t __attribute__((vector_size(4 * kLanes)));

#define FASTREASON_INLINE inline __attribute__((always_inline))

FASTREASON_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
FASTREASON_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof(v)); }
FASTREASON_INLINE Vec splat(float x) { return x - Vec{}; }

// The first n lanes, the others `fill`.
FASTREASON_INLINE Vec load_some(const float* p, std::int64_t n, float fill = 0.0F) {
  Vec v = splat(fill);
  for (int i = 0; i < kLanes; ++i)
    if (i < n) v[i] = p[i];
  return v;
}
FASTREASON_INLINE void store_some(float* p, Vec v, std::int64_t n) {
  for (int i = 0; i < kLanes; ++i)
    if (i < n) p[i] = v[i];
}

FASTREASON_INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// The first n lanes of a, the rest of b; n may exceed the number of lanes.
FASTREASON_INLINE Vec first_lanes(std::int64_t n, Vec a, Vec b) {
  IntVec lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  const IntVec count = static_cast<std::int32_t>(n < kLanes ? n : kLanes) - IntVec{};
  return lane < count ? a : b;
}

// Folds halves onto each other until one lane is left.
using Half = float __attribute__((vector_size(2 * kLanes)));
using Four = float __attribute__((vector_size(16)));

template <class Combine>
FASTREASON_INLINE float fold(Vec v, Combine combine) {
  Four four;
  if constexpr (kLanes == 4) {
    __builtin_memcpy(&four, &v, sizeof(four));
  } else {
    Half low, high;
    __builtin_memcpy(&low, &v, sizeof(low));
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof(low), sizeof(high));
    const Half half = combine(low, high);
    if constexpr (kLanes == 8) {
      __builtin_memcpy(&four, &half, sizeof(four));
    } else {
      Four a, b;
      __builtin_memcpy(&a, &half, sizeof(a));
      __builtin_memcpy(&b, reinterpret_cast<const char*>(&half) + sizeof(a), sizeof(b));
      four = combine(a, b);
    }
  }
  return combine(combine(four[0], four[2]), combine(four[1], four[3]));
}
FASTREASON_INLINE float sum(Vec v) {
  return fold(v, [](auto a, auto b) __attribute__((always_inline)) { return a + b; });
}
FASTREASON_INLINE float largest(Vec v) {
  return fold(v, [](auto a, auto b) __attribute__((always_inline)) { return a > b ? a : b; });
}

// e^x to 2 units in the last place; 0 below -87, just before it would be subnormal, infinite above 88.7; NaN stays NaN.
// Cephes' polynomial on [-ln 2 / 2, ln 2 / 2].
FASTREASON_INLINE Vec exponential(Vec x) {
  const Vec low = splat(-87.33654F), high = splat(88.72283F);
  // comparisons that NaN fails, so that it goes through
  Vec y = x < low ? low : x;
  y = y > high ? high : y;
  const Vec rounder = splat(12582912.0F);  // 1.5 * 2^23: adding it leaves an integer in the low bits
  const Vec shifted = y * 1.44269504F + rounder;
  const Vec n = shifted - rounder;
  Vec r = y - n * 0.693359375F;
  r = r - n * -2.12194440e-4F;
  Vec p = splat(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  IntVec bits;
  __builtin_memcpy(&bits, &shifted, sizeof(bits));
  // 2^(n - 1), and 2 apart from it: n is 128 at the upper end
  bits = (bits - 0x4B400000 + 126) << 23;
  Vec power;
  __builtin_memcpy(&power, &bits, sizeof(power));
  const Vec result = p * power * 2.0F;
  const Vec capped = x > high ? splat(__builtin_inff()) : result;
  return x < low ? Vec{} : capped;
}

// bfloat16 is the upper half of a float32; rounded to the nearest, ties to even. NaN stays NaN.
FASTREASON_INLINE float number(float x) { return x; }
FASTREASON_INLINE float number(std::uint16_t x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float wide;
  __builtin_memcpy(&wide, &bits, sizeof(wide));
  return wide;
}
FASTREASON_INLINE void put(float* to, float x) { *to = x; }
FASTREASON_INLINE void put(std::uint16_t* to, float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  const std::uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, quiet_nan = 0x7FC0;
  *to = static_cast<std::uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? quiet_nan : rounded);
}
inline void widen(const std::uint16_t* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = number(from[i]);
}
inline void narrow(const float* from, std::uint16_t* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) put(to + i, from[i]);
}

// A vector of bfloat16, widened; and rounded.
using Narrow = std::uint16_t __attribute__((vector_size(2 * kLanes)));
using Bits = std::uint32_t __attribute__((vector_size(4 * kLanes)));

FASTREASON_INLINE Vec load(const std::uint16_t* p) {
  Narrow v;
  __builtin_memcpy(&v, p, sizeof(v));
  const Bits bits = __builtin_convertvector(v, Bits) << 16;
  Vec wide;
  __builtin_memcpy(&wide, &bits, sizeof(wide));
  return wide;
}
FASTREASON_INLINE void store(std::uint16_t* p, Vec v) {
  Bits bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  const Bits rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const Bits known = v == v ? rounded : 0x7FC0 - Bits{};
  const Narrow narrowed = __builtin_convertvector(known, Narrow);
  __builtin_memcpy(p, &narrowed, sizeof(narrowed));
}

// Row n, in `scratch` where it has to be converted.
FASTREASON_INLINE const float* in_float32(const Rows& rows, std::int64_t n, std::int64_t width, float* scratch) {
  if (!rows.bfloat16) return rows.row(n);
  widen(rows.row16(n), scratch, width);
  return scratch;
}

FASTREASON_INLINE Vec sigmoid(Vec x) { return 1.0F / (1.0F + exponential(-x)); }

}  // namespace
}  // namespace fastreason
