// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//
// The same key and counter give the same four words in Triton (`tl.philox`), cuRAND and here, so item i of seed s is
// the same on every thread, machine and language. No std:: distribution is used: their output differs by library.
#pragma once

#include <array>
#include <cstdint>

#include "common/device.h"
#include "common/portable_math.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace fastreason {

using PhiloxKey = std::array<std::uint32_t, 2>;
using PhiloxBlock = std::array<std::uint32_t, 4>;

FASTREASON_HD inline PhiloxBlock philox4x32(PhiloxBlock counter, PhiloxKey key) {
  constexpr std::uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = static_cast<std::uint64_t>(kMultiplier0) * counter[0];
    const std::uint64_t product1 = static_cast<std::uint64_t>(kMultiplier1) * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

// What position `position` of sample `sample` of a prompt draws: float32 in (0, 1), a multiple of 2^-25.
FASTREASON_HD inline float uniform_draw(std::uint64_t seed, std::int64_t prompt, std::int64_t sample,
                                        std::int64_t position) {
  const auto p = static_cast<std::uint64_t>(prompt);
  const PhiloxBlock block = philox4x32({static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(sample),
                                        static_cast<std::uint32_t>(p), static_cast<std::uint32_t>(p >> 32)},
                                       {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  const float u = (static_cast<float>(block[0] >> 8) + 0.5f) * 0x1p-24f;
  return u < 1.0f ? u : 1.0f - 0x1p-24f;  // the half is rounded away above 1/2, upwards from the last value
}

inline constexpr std::size_t kPhiloxBatch = 4;

// The blocks of kPhiloxBatch counters that follow each other in their first word.
inline void philox4x32_batch(const PhiloxBlock& counter, const PhiloxKey& key, std::uint32_t* words) {
#ifdef __SSE2__
  // Two counters a register, each word in the low half of 64 bits; the multiplication ignores the high half, so what
  // gathers there does no harm.
  const auto both = [](std::uint32_t x) { return _mm_set1_epi64x(static_cast<long long>(x)); };
  const __m128i multiplier0 = both(0xD2511F53u), multiplier1 = both(0xCD9E8D57u);
  const __m128i weyl0 = both(0x9E3779B9u), weyl1 = both(0xBB67AE85u);
  __m128i c[2][4], key0 = both(key[0]), key1 = both(key[1]);
  for (std::uint32_t half = 0; half < 2; ++half) {
    c[half][0] = _mm_set_epi64x(counter[0] + 2 * half + 1, counter[0] + 2 * half);
    for (std::size_t w = 1; w < 4; ++w) c[half][w] = both(counter[w]);
  }
  for (int round = 0; round < 10; ++round) {
    for (auto& [c0, c1, c2, c3] : c) {
      const __m128i product0 = _mm_mul_epu32(c0, multiplier0), product1 = _mm_mul_epu32(c2, multiplier1);
      c0 = _mm_xor_si128(_mm_xor_si128(_mm_srli_epi64(product1, 32), c1), key0);
      c2 = _mm_xor_si128(_mm_xor_si128(_mm_srli_epi64(product0, 32), c3), key1);
      c1 = product1;
      c3 = product0;
    }
    key0 = _mm_add_epi32(key0, weyl0);
    key1 = _mm_add_epi32(key1, weyl1);
  }
  for (std::size_t half = 0; half < 2; ++half) {
    // words 0 and 1 of both counters, then words 2 and 3
    const auto low = [](__m128i x) { return _mm_shuffle_epi32(x, _MM_SHUFFLE(3, 1, 2, 0)); };
    const __m128i pairs01 = _mm_unpacklo_epi32(low(c[half][0]), low(c[half][1]));
    const __m128i pairs23 = _mm_unpacklo_epi32(low(c[half][2]), low(c[half][3]));
    auto* const to = reinterpret_cast<__m128i*>(words + 8 * half);
    _mm_storeu_si128(to, _mm_unpacklo_epi64(pairs01, pairs23));
    _mm_storeu_si128(to + 1, _mm_unpackhi_epi64(pairs01, pairs23));
  }
#else
  for (std::uint32_t b = 0; b < kPhiloxBatch; ++b) {
    const PhiloxBlock block = philox4x32({counter[0] + b, counter[1], counter[2], counter[3]}, key);
    for (std::size_t w = 0; w < 4; ++w) words[4 * b + w] = block[w];
  }
#endif
}

// A stream of draws: key = seed, counter = (block, purpose, index low, index high). Two streams that differ in any of
// seed, purpose or index share no block.
class Rng {
 public:
  Rng(std::uint64_t seed, std::uint64_t index, std::uint32_t purpose)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        counter_{0, purpose, static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32)} {}

  std::uint32_t next() {
    if (used_ == words_.size()) {
      philox4x32_batch(counter_, key_, words_.data());
      counter_[0] += kPhiloxBatch;
      used_ = 0;
    }
    return words_[used_++];
  }

  std::uint64_t next64() {
    const std::uint64_t high = next();
    return high << 32 | next();
  }

  // Uniform in [0, n), n >= 1, without bias: Lemire 2019, arXiv:1805.10941.
  int below(int n) {
    const auto range = static_cast<std::uint32_t>(n);
    std::uint64_t product = static_cast<std::uint64_t>(next()) * range;
    if (static_cast<std::uint32_t>(product) < range) {
      const std::uint32_t threshold = (0u - range) % range;
      while (static_cast<std::uint32_t>(product) < threshold) product = static_cast<std::uint64_t>(next()) * range;
    }
    return static_cast<int>(product >> 32);
  }

  // Uniform in [low, high], both included.
  int between(int low, int high) { return low + below(high - low + 1); }

  // Fair; takes one bit, so that the many coins of an attempt cost an eighth of a block each.
  bool coin() {
    if (num_coins_ == 0) {
      coins_ = next();
      num_coins_ = 32;
    }
    const bool heads = (coins_ & 1u) != 0;
    coins_ >>= 1;
    --num_coins_;
    return heads;
  }

  // Uniform in the open interval (0, 1), 53 bits.
  double unit() {
    const std::uint64_t high = next() >> 5, low = next() >> 6;
    return (static_cast<double>((high << 26) | low) + 0.5) * 0x1p-53;
  }

  // Standard normal by Marsaglia's polar method; the second of each pair is kept for the next call.
  double normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    double u, v, square;
    do {
      u = 2.0 * (next() * 0x1p-32 + 0x1p-33) - 1.0;
      v = 2.0 * (next() * 0x1p-32 + 0x1p-33) - 1.0;
      square = u * u + v * v;
    } while (square >= 1.0);
    const double scale = square_root(-2.0 * natural_log(square) / square);
    spare_ = v * scale;
    has_spare_ = true;
    return u * scale;
  }

 private:
  PhiloxKey key_;
  PhiloxBlock counter_;
  std::array<std::uint32_t, 4 * kPhiloxBatch> words_;
  std::size_t used_ = 4 * kPhiloxBatch;
  std::uint32_t coins_ = 0;
  int num_coins_ = 0;
  double spare_ = 0.0;
  bool has_spare_ = false;
};

}  // namespace fastreason
