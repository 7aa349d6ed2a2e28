// What attention in float32 and in bfloat16 share.
#pragma once

#include "cpu/simd.h"

namespace fastreason {
namespace {

FASTREASON_INLINE std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

FASTREASON_INLINE std::int64_t key_token(const AttentionSegment& s, std::int64_t key) {
  return key < s.prefix_length ? s.prefix_start + key : s.start + key - s.prefix_length;
}

FASTREASON_INLINE float row_maximum(const float* row, std::int64_t visible) {
  Vec best = splat(-__builtin_inff());
  std::int64_t j = 0;
  for (; j + kLanes <= visible; j += kLanes) best = larger(load(row + j), best);
  if (j < visible) best = larger(first_lanes(visible - j, load(row + j), best), best);
  return largest(best);
}

}  // namespace
}  // namespace fastreason
