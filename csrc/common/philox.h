// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//
// The same key and counter give the same four words in Triton (`tl.philox`), cuRAND and here, so item i of seed s is
// the same on every thread, machine and language. No std:: distribution is used: their output differs by library.
#pragma once

#include <array>
#include <cstdint>

#include "common/portable_math.h"

namespace fastreason {

using PhiloxKey = std::array<std::uint32_t, 2>;
using PhiloxBlock = std::array<std::uint32_t, 4>;

inline PhiloxBlock philox4x32(PhiloxBlock counter, PhiloxKey key) {
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

// A stream of draws: key = seed, counter = (block, purpose, index low, index high). Two streams that differ in any of
// seed, purpose or index share no block.
class Rng {
 public:
  Rng(std::uint64_t seed, std::uint64_t index, std::uint32_t purpose)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        counter_{0, purpose, static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32)} {}

  std::uint32_t next() {
    if (used_ == 4) {
      block_ = philox4x32(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
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
  PhiloxBlock block_{};
  int used_ = 4;
  std::uint32_t coins_ = 0;
  int num_coins_ = 0;
  double spare_ = 0.0;
  bool has_spare_ = false;
};

}  // namespace fastreason
