#include "grade/spans.h"

#include <algorithm>

namespace fastreason {

namespace {

// Bytes of the character at `at`: of a whole one, or of the longest part of one that is there. Unicode 15, table 3-7.
std::size_t character_size(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
  const int first = byte(at);
  const std::size_t wanted = first < 0xC2 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 1;
  for (std::size_t i = 1; i < wanted; ++i) {
    // ED A0 .. BF are halves of surrogate pairs, which a str may hold
    const int low = i > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const int high = i == 1 && first == 0xF4 ? 0x8F : 0xBF;
    if (byte(at + i) < low || byte(at + i) > high) return i;
  }
  return wanted;
}

}  // namespace

TokenSpan tokens_of(std::uint32_t begin, std::uint32_t end, std::span<const std::uint32_t> ends) {
  const auto first = std::upper_bound(ends.begin(), ends.end(), begin);
  const auto last = std::lower_bound(first, ends.end(), end);
  const auto index = [&](auto at) { return static_cast<std::int32_t>(at - ends.begin()); };
  return {index(first), std::min(index(last) + 1, static_cast<std::int32_t>(ends.size()))};
}

void bytes_to_characters(std::string_view text, std::span<StepVerdict> steps) {
  std::size_t at = 0;
  std::uint32_t characters = 0;
  const auto advance_to = [&](std::uint32_t byte) {
    for (; at < byte; ++characters) at += character_size(text, at);
    return characters;
  };
  for (StepVerdict& step : steps) {
    step.begin = advance_to(step.begin);
    step.end = advance_to(step.end);
  }
}

}  // namespace fastreason
