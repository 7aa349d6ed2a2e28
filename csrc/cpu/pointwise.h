// Norm, rotation and gate over rows first .. last - 1: one pass over memory each.
#pragma once

#include "cpu/simd.h"

namespace fastreason {
namespace {

// y = x rstd weight, rstd = 1 / sqrt(mean x^2 + eps); width a multiple of kLanes
void rms_norm_forward(const float* x, const float* weight, float* y, float* rstd, std::int64_t first, std::int64_t last,
                      std::int64_t width, float eps) {
  for (std::int64_t n = first; n < last; ++n) {
    const float* row = x + n * width;
    Vec squares{};
    for (std::int64_t d = 0; d < width; d += kLanes) squares += load(row + d) * load(row + d);
    const float factor = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
    rstd[n] = factor;
    for (std::int64_t d = 0; d < width; d += kLanes)
      store(y + n * width + d, load(row + d) * factor * load(weight + d));
  }
}

// dx = rstd (g - xhat mean(g xhat)) with g = dy weight, xhat = x rstd; dweight[width] += dy xhat
void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* rstd, float* dx,
                       float* dweight, std::int64_t first, std::int64_t last, std::int64_t width) {
  for (std::int64_t n = first; n < last; ++n) {
    const float* row = x + n * width;
    const float* gradient = dy + n * width;
    const float factor = rstd[n];
    Vec products{};
    for (std::int64_t d = 0; d < width; d += kLanes) {
      const Vec product = load(gradient + d) * load(row + d);
      products += product * load(weight + d);
      store(dweight + d, load(dweight + d) + product * factor);
    }
    const float mean = sum(products) * factor * factor / static_cast<float>(width);
    for (std::int64_t d = 0; d < width; d += kLanes)
      store(dx + n * width + d, factor * (load(gradient + d) * load(weight + d) - load(row + d) * mean));
  }
}

// gate_up [N, 2 width] -> silu(gate) up; width a multiple of kLanes
void swiglu_forward(const float* gate_up, float* y, std::int64_t first, std::int64_t last, std::int64_t width) {
  for (std::int64_t n = first; n < last; ++n) {
    const float* gate = gate_up + 2 * n * width;
    for (std::int64_t f = 0; f < width; f += kLanes) {
      const Vec x = load(gate + f);
      store(y + n * width + f, x * sigmoid(x) * load(gate + width + f));
    }
  }
}

void swiglu_backward(const float* dy, const float* gate_up, float* d_gate_up, std::int64_t first, std::int64_t last,
                     std::int64_t width) {
  for (std::int64_t n = first; n < last; ++n) {
    const float* gate = gate_up + 2 * n * width;
    float* d_gate = d_gate_up + 2 * n * width;
    for (std::int64_t f = 0; f < width; f += kLanes) {
      const Vec x = load(gate + f), up = load(gate + width + f), upstream = load(dy + n * width + f);
      const Vec s = sigmoid(x);
      store(d_gate + f, upstream * up * s * (1.0F + x * (1.0F - s)));
      store(d_gate + width + f, upstream * x * s);
    }
  }
}

// y[t, h] = (a cos - b sin, b cos + a sin) of the halves a, b of x[t, h]; sign -1 turns back. y is contiguous, cos and
// sin are [T, dim], whose first half is read; dim / 2 a multiple of kLanes, or smaller than it.
void rope_rotate(const float* x, std::int64_t token_stride, std::int64_t head_stride, const float* cos,
                 const float* sin, float* y, std::int64_t first, std::int64_t last, std::int64_t heads,
                 std::int64_t dim, float sign) {
  const std::int64_t half = dim / 2;
  for (std::int64_t t = first; t < last; ++t) {
    // the first half of the table of sin is negative
    const float* c = cos + t * dim;
    const float* s = sin + t * dim + half;
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* from = x + t * token_stride + h * head_stride;
      float* to = y + (t * heads + h) * dim;
      std::int64_t d = 0;
      for (; d + kLanes <= half; d += kLanes) {
        const Vec a = load(from + d), b = load(from + half + d), turn = sign * load(s + d), stay = load(c + d);
        store(to + d, a * stay - b * turn);
        store(to + half + d, b * stay + a * turn);
      }
      for (; d < half; ++d) {
        const float a = from[d], b = from[half + d], turn = sign * s[d];
        to[d] = a * c[d] - b * turn;
        to[half + d] = b * c[d] + a * turn;
      }
    }
  }
}

}  // namespace
}  // namespace fastreason
