// 64-bit hashing with fixed constants: the same value on every platform and in every process.
#pragma once

#include <cstdint>
#include <string_view>

namespace fastreason {

// The finalizer of splitmix64: a bijection in which every input bit reaches every output bit.
inline std::uint64_t mix64(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

inline std::uint64_t combine(std::uint64_t a, std::uint64_t b) { return mix64(a ^ mix64(b)); }

inline std::uint64_t hash_bytes(std::string_view text) {
  std::uint64_t state = mix64(text.size());
  std::uint64_t word = 0;
  int filled = 0;
  for (const char c : text) {
    word |= static_cast<std::uint64_t>(static_cast<unsigned char>(c)) << (8 * filled);
    if (++filled == 8) {
      state = combine(state, word);
      word = 0;
      filled = 0;
    }
  }
  return filled ? combine(state, word) : state;
}

}  // namespace fastreason
