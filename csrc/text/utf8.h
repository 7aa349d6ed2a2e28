// One character of a text that may hold any bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fastreason {

constexpr std::uint32_t kInvalidByte = 0x110000;  // stands for a byte that belongs to no character

struct Utf8Char {
  std::uint32_t code;
  std::size_t size;  // in bytes
};

// The character that begins at `at`; overlong forms, surrogates and cut characters are single invalid bytes.
inline Utf8Char char_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const std::size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() - at < size) return {kInvalidByte, 1};
  std::uint32_t code = lead & (0x7Fu >> size);
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {kInvalidByte, 1};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
  if (overlong || (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF) return {kInvalidByte, 1};
  return {code, size};
}

// Where the character that ends at `at` > 0 begins. A byte that is no continuation always begins a character, so this
// agrees with reading forwards.
inline std::size_t char_before(std::string_view text, std::size_t at) {
  for (std::size_t size = 1; size <= 4 && size <= at; ++size) {
    if ((static_cast<unsigned char>(text[at - size]) & 0xC0) == 0x80) continue;
    return char_at(text, at - size).size == size ? at - size : at - 1;
  }
  return at - 1;
}

}  // namespace fastreason
