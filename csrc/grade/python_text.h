// Characters as Python's regular expressions class them in a str, over UTF-8 bytes. The texts hold whole characters.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "text/unicode_ranges.h"
#include "text/utf8.h"

namespace fastreason::python {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// \s, str.isspace
inline bool is_blank(std::uint32_t code) {
  if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r') || (code >= 0x1C && code <= 0x1F);
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}
inline bool is_blank(char c) { return c >= 0 && is_blank(static_cast<std::uint32_t>(c)); }

// str.strip
inline std::string_view trim(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char first = char_at(text, 0);
    if (!is_blank(first.code)) break;
    text.remove_prefix(first.size);
  }
  while (!text.empty()) {
    const std::size_t last = char_before(text, text.size());
    if (!is_blank(char_at(text, last).code)) break;
    text = text.substr(0, last);
  }
  return text;
}

inline bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
inline int ascii_letter_index(char c) { return c >= 'a' ? 26 + c - 'a' : c - 'A'; }

// [A-Za-z] without regard to case: 52 letters, and four more whose other case is one of them.
constexpr int kNumLetters = 56;
constexpr std::string_view kFurtherLetters[] = {"\xC4\xB0", "\xC4\xB1", "\xC5\xBF", "\xE2\x84\xAA"};

struct Letter {
  int index;         // 0..51: A-Z a-z
  std::size_t size;  // in bytes; 0: no letter
};

inline Letter letter_before(std::string_view text, std::size_t end) {
  if (end == 0) return {0, 0};
  const char last = text[end - 1];
  if (is_ascii_letter(last)) return {ascii_letter_index(last), 1};
  if (last >= 0) return {0, 0};
  for (int i = 0; i < 4; ++i)
    if (text.substr(0, end).ends_with(kFurtherLetters[i])) return {52 + i, kFurtherLetters[i].size()};
  return {0, 0};
}

// Bytes of `word` (in lower case) at `at` without regard to case, 0 if it is not there.
inline std::size_t match_word(std::string_view text, std::size_t at, std::string_view word) {
  std::size_t end = at;
  for (const char c : word) {
    if (end >= text.size()) return 0;
    if (text[end] == c || (is_ascii_letter(text[end]) && (text[end] | 0x20) == c)) {
      ++end;
      continue;
    }
    const std::string_view pair = text.substr(end, 2);
    const bool same = (c == 'i' && (pair == kFurtherLetters[0] || pair == kFurtherLetters[1])) ||
                      (c == 's' && pair == kFurtherLetters[2]);
    if (!same) return 0;
    end += 2;
  }
  return end - at;
}

// \w
inline bool is_word(std::uint32_t code) {
  if (code < 0x80) return is_ascii_letter(static_cast<char>(code)) || (code >= '0' && code <= '9') || code == '_';
  const auto within = [code](const auto& ranges) {
    const auto* after = std::upper_bound(std::begin(ranges), std::end(ranges), code,
                                         [](std::uint32_t value, const auto& range) { return value < range[0]; });
    return after != std::begin(ranges) && code <= (*(after - 1))[1];
  };
  return within(kLetterRanges) || within(kNumberRanges);
}

// The zeros of \d, each with the other nine digits behind it: Unicode 16, general category Nd.
inline constexpr std::uint32_t kZeros[] = {
    0x30,    0x660,   0x6F0,   0x7C0,   0x966,   0x9E6,   0xA66,   0xAE6,   0xB66,   0xBE6,   0xC66,   0xCE6,   0xD66,
    0xDE6,   0xE50,   0xED0,   0xF20,   0x1040,  0x1090,  0x17E0,  0x1810,  0x1946,  0x19D0,  0x1A80,  0x1A90,  0x1B50,
    0x1BB0,  0x1C40,  0x1C50,  0xA620,  0xA8D0,  0xA900,  0xA9D0,  0xA9F0,  0xAA50,  0xABF0,  0xFF10,  0x104A0, 0x10D30,
    0x10D40, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x116D0, 0x116DA, 0x11730,
    0x118E0, 0x11950, 0x11BF0, 0x11C50, 0x11D50, 0x11DA0, 0x11F50, 0x16130, 0x16A60, 0x16AC0, 0x16B50, 0x16D70, 0x1CCF0,
    0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E4F0, 0x1E5F1, 0x1E950, 0x1FBF0};

// The digit that a character stands for, -1 if none.
inline int digit_value(std::uint32_t code) {
  if (code < 0x660) return code >= '0' && code <= '9' ? static_cast<int>(code) - '0' : -1;
  const auto* after = std::upper_bound(std::begin(kZeros), std::end(kZeros), code);
  const std::uint32_t digit = code - *(after - 1);
  return digit < 10 ? static_cast<int>(digit) : -1;
}

}  // namespace fastreason::python
