// Vectors of floats, and how numbers of a precision are multiplied. Included by matrix.h alone, once for each
// instruction set, which defines kVec (floats of a vector register).
#pragma once

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include "decode/forward.h"

namespace fastreason::FASTREASON_KERNEL {

namespace {

typedef float Vec __attribute__((vector_size(4 * kVec), aligned(4), may_alias));
typedef std::int32_t IntVec __attribute__((vector_size(4 * kVec), aligned(4), may_alias));
typedef std::uint32_t BitVec __attribute__((vector_size(4 * kVec), aligned(2), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec x) { *reinterpret_cast<Vec*>(p) = x; }
inline Vec splat(float x) { return Vec{} + x; }

// The first `count`, -inf behind them.
inline Vec first_of(Vec x, std::int64_t count) {
  if (count >= kVec) return x;
  IntVec lane;
  for (int i = 0; i < kVec; ++i) lane[i] = i;
  return lane < IntVec{} + static_cast<std::int32_t>(count) ? x : splat(-__builtin_inff());
}

// To the nearest, ties to even; NaN stays NaN.
inline Bfloat16 narrow(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  const std::uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, quiet_nan = 0x7FC0;
  return static_cast<Bfloat16>((bits & 0x7FFFFFFF) > 0x7F800000 ? quiet_nan : rounded);
}
inline float widen(Bfloat16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float wide;
  __builtin_memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

// Conversion of one element.
template <class To>
inline To to(float x);
template <>
inline float to<float>(float x) {
  return x;
}
template <>
inline Bfloat16 to<Bfloat16>(float x) {
  return narrow(x);
}
inline float to_float(float x) { return x; }
inline float to_float(Bfloat16 x) { return widen(x); }

// How a product with numbers on its right side is computed: a group of kGroup rows k takes kParts multiply-adds.
// `Left` is what the left side is kept as.
template <class Number>
struct Factors;

template <>
struct Factors<float> {
  using Left = float;
  using Operand = Vec;
  static constexpr int kParts = 1;

  static Vec column(const float* p, int) { return load(p); }
  static Vec factor(const float* p, int) { return splat(*p); }
  static Vec multiply_add(Vec a, Vec b, Vec sum) { return sum + a * b; }
  static float left(float x) { return x; }
  static void store_left(float* p, Vec x) { store(p, x); }
};

#ifdef __AVX512BF16__

// A pair of k in one instruction, the odd one first. It takes denormals for zero.
template <>
struct Factors<Bfloat16> {
  using Left = Bfloat16;
  using Operand = BitVec;
  static constexpr int kParts = 1;

  static BitVec column(const Bfloat16* p, int) { return *reinterpret_cast<const BitVec*>(p); }
  static BitVec factor(const Bfloat16* p, int) {
    std::uint32_t pair;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return BitVec{} + pair;
  }
  static Vec multiply_add(BitVec a, BitVec b, Vec sum) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
  static Bfloat16 left(float x) { return narrow(x); }
  static void store_left(Bfloat16* p, Vec x) {
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)x);
    __builtin_memcpy(p, &rounded, sizeof(rounded));
  }
};

// The first or the second numbers of 16 pairs.
inline void put_half(Bfloat16* pairs, int half, Vec x) {
  const __m256bh rounded = _mm512_cvtneps_pbh((__m512)x);
  typedef std::uint16_t Halves __attribute__((vector_size(32)));
  const BitVec bits = __builtin_convertvector((Halves)rounded, BitVec);
  BitVec* const to = reinterpret_cast<BitVec*>(pairs);
  *to = half == 0 ? (*to & 0xFFFF0000U) | bits : (*to & 0xFFFFU) | bits << 16;
}

#else

// The two k of a pair one after the other, the odd one first, as the instruction for it is specified. The left side is
// kept as floats, already rounded.
template <>
struct Factors<Bfloat16> {
  using Left = float;
  using Operand = Vec;
  static constexpr int kParts = 2;

  static Vec column(const Bfloat16* p, int part) {
    const BitVec pair = *reinterpret_cast<const BitVec*>(p);
    return (Vec)(part == 0 ? pair & 0xFFFF0000U : pair << 16);
  }
  static Vec factor(const float* p, int part) { return splat(p[1 - part]); }
  static Vec multiply_add(Vec a, Vec b, Vec sum) { return sum + a * b; }
  static float left(float x) { return widen(narrow(x)); }
  static void store_left(float* p, Vec x) {
    const BitVec bits = (BitVec)x, rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U;
    store(p, x == x ? (Vec)rounded : x);
  }
};

#endif

}  // namespace

}  // namespace fastreason::FASTREASON_KERNEL
