// Spans of steps in other units than bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "grade/verify.h"

namespace fastreason {

struct TokenSpan {
  std::int32_t begin, end;
};

// The tokens that share a byte with [begin, end), where token i ends at ends[i] and the next one begins.
TokenSpan tokens_of(std::uint32_t begin, std::uint32_t end, std::span<const std::uint32_t> ends);

// Rewrites the spans of steps, which are in order of the text, from bytes to characters. Bytes that are no UTF-8 count
// as Python's errors="replace" and "surrogatepass" read them: one character for each longest part that begins one.
void bytes_to_characters(std::string_view text, std::span<StepVerdict> steps);

}  // namespace fastreason
