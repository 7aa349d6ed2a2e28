// What a caller chooses, in the numbers that rows are drawn with.
#pragma once

#include <cmath>
#include <limits>

namespace fastreason {

// Of one row on a GPU; a CPU takes 2^23, where sums of weights end.
inline constexpr int kMostTokens = 1 << 18;

struct SampleSettings {
  float inverse_temperature = 1.0f;
  bool greedy = false;                                      // temperature 0
  int top_k = 0;                                            // 0: all
  double top_p = 1.0;                                       // 1: all
  float min_log = -std::numeric_limits<float>::infinity();  // log of min_p; -inf: all
};

// The arguments of kernels/sample.py, for a vocabulary of V.
inline SampleSettings sample_settings(double temperature, int top_k, double top_p, double min_p, int V) {
  SampleSettings settings;
  settings.greedy = temperature == 0.0;
  if (settings.greedy) return settings;
  settings.inverse_temperature = static_cast<float>(1.0 / temperature);
  settings.top_k = top_k < V ? top_k : 0;
  settings.top_p = top_p;
  if (min_p > 0.0) settings.min_log = static_cast<float>(std::log(min_p));
  return settings;
}

}  // namespace fastreason
