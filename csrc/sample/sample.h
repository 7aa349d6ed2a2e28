// Sampling on CPU: rows over threads.
#pragma once

#include <cstdint>

#include "sample/row.h"

namespace fastreason {

// Where a row's draws come from; the arrays have one number a row.
struct DrawKeys {
  std::uint64_t seed;
  const std::int64_t *prompts, *samples, *positions;
};

struct SampleOutput {
  std::int64_t* tokens;
  float *logprobs, *full_logprobs;
};

// logits: num_rows of V each, `stride` apart. The same for any number of threads (0: all cores).
void sample_rows(const float* logits, std::int64_t num_rows, int V, std::int64_t stride, const SampleSettings& settings,
                 const DrawKeys& keys, const SampleOutput& out, int threads);

}  // namespace fastreason
