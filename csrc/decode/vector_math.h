// Sums, maxima and exponentials of vectors. Included by forward_kernels.h alone, once for each instruction set.
#pragma once

#include "decode/number.h"

namespace fastreason::FASTREASON_KERNEL {

namespace {

#ifdef __AMX_BF16__

// Beside products in tiles these take a share that is worth instructions of their own, and bfloat16 keeps 8 bits.

inline float sum_of(Vec x) { return _mm512_reduce_add_ps((__m512)x); }
inline float largest_of(Vec x) { return _mm512_reduce_max_ps((__m512)x); }

// e^x within 3e-6 of it; 0 below -87, as scaling to a denormal number takes a hundred cycles; NaN of NaN. Polynomial of
// degree 4, least relative error.
inline Vec exponential(Vec x) {
  const __m512 lowest = _mm512_set1_ps(-87.0f);
  const __mmask16 remains = _mm512_cmp_ps_mask((__m512)x, lowest, _CMP_NLT_UQ);
  // the second operand where one is NaN
  const __m512 bounded = _mm512_max_ps(lowest, (__m512)x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(bounded, _mm512_set1_ps(1.44269504088896341f)), 0);
  const Vec r = (Vec)_mm512_fnmadd_ps(n, _mm512_set1_ps(0.693147180559945309f), bounded);
  Vec p = splat(4.151368197e-2f);
  p = p * r + splat(1.678759173e-1f);
  p = p * r + splat(5.000301979e-1f);
  p = p * r + splat(9.999667727e-1f);
  p = p * r + splat(1.0f);
  return (Vec)_mm512_maskz_scalef_ps(remains, (__m512)p, n);
}

// x / (1 + e^-x) within 7e-5 of it.
inline Vec silu(Vec x) {
  const Vec e = exponential((Vec)_mm512_min_ps(_mm512_set1_ps(80.0f), (__m512)-x));
  return x * (Vec)_mm512_rcp14_ps((__m512)(splat(1.0f) + e));
}

#else

inline float sum_of(Vec x) {
  float total = 0.0f;
  for (int i = 0; i < kVec; ++i) total += x[i];
  return total;
}

// e^x within 2 ulp; 0 below -87, as far as float goes without denormals. Cody-Waite reduction, degree 6.
inline Vec exponential(Vec x) {
  const Vec lowest = splat(-87.0f), highest = splat(88.0f);
  const auto vanishes = x < lowest;
  x = vanishes ? lowest : x;
  x = x > highest ? highest : x;
  const Vec shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec n = (x * splat(1.44269504088896341f) + shifter) - shifter;
  const Vec r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
  Vec p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * r * r + r + splat(1.0f);
  const IntVec power = (__builtin_convertvector(n, IntVec) + 127) << 23;
  const Vec result = p * reinterpret_cast<const Vec&>(power);
  return vanishes ? Vec{} : result;
}

inline float largest_of(Vec x) {
  float largest = x[0];
  for (int i = 1; i < kVec; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// x / (1 + e^-x)
inline Vec silu(Vec x) { return x / (splat(1.0f) + exponential(-x)); }

#endif

}  // namespace

}  // namespace fastreason::FASTREASON_KERNEL
