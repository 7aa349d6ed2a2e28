// Cross entropy of rows first .. last - 1 and its gradient, the row in the cache between the two.
#pragma once

#include "cpu/simd.h"

namespace fastreason {
namespace {

// losses[n] = share[n] (lse - logits[label] + z_loss lse^2), gradient[n] = its gradient; zeros where the share is 0.
// gradient may be null.
void cross_entropy_rows(const float* logits, std::int64_t row_stride, const std::int64_t* labels, const float* shares,
                        float z_loss, float* losses, float* gradient, std::int64_t first, std::int64_t last,
                        std::int64_t width) {
  const std::int64_t whole = width / kLanes * kLanes, rest = width - whole;
  for (std::int64_t n = first; n < last; ++n) {
    const float* row = logits + n * row_stride;
    float* out = gradient ? gradient + n * width : nullptr;
    const float share = shares[n];
    if (share == 0.0F) {
      losses[n] = 0.0F;
      for (std::int64_t v = 0; out && v < width; ++v) out[v] = 0.0F;
      continue;
    }
    Vec best = splat(-__builtin_inff());
    for (std::int64_t v = 0; v < whole; v += kLanes) best = larger(load(row + v), best);
    if (rest) best = larger(load_some(row + whole, rest, -__builtin_inff()), best);
    const float maximum = largest(best);
    Vec total{};
    for (std::int64_t v = 0; v < whole; v += kLanes) {
      const Vec e = exponential(load(row + v) - maximum);
      if (out) store(out + v, e);
      total += e;
    }
    const Vec tail = rest ? exponential(load_some(row + whole, rest, -__builtin_inff()) - maximum) : Vec{};
    const float sum_of = sum(total + tail), log_sum = __builtin_logf(sum_of), lse = maximum + log_sum;
    losses[n] = share * (log_sum - (row[labels[n]] - maximum) + z_loss * lse * lse);
    if (!out) continue;
    const float scale = share * (1.0F + 2.0F * z_loss * lse) / sum_of;
    for (std::int64_t v = 0; v < whole; v += kLanes) store(out + v, load(out + v) * scale);
    if (rest) store_some(out + whole, tail * scale, rest);
    out[labels[n]] -= share;
  }
}

}  // namespace
}  // namespace fastreason
