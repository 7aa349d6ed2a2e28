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

// total = x + residual, y = its norm
void add_rms_norm_forward16(const std::uint16_t* x, const float* residual, const float* weight, float* total,
                            std::uint16_t* y, float* rstd, std::int64_t first, std::int64_t last, std::int64_t width,
                            float eps) {
  for (std::int64_t n = first; n < last; ++n) {
    const std::int64_t row = n * width;
    Vec squares{};
    for (std::int64_t d = 0; d < width; d += kLanes) {
      const Vec sum_of = load(x + row + d) + load(residual + row + d);
      store(total + row + d, sum_of);
      squares += sum_of * sum_of;
    }
    const float factor = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
    rstd[n] = factor;
    for (std::int64_t d = 0; d < width; d += kLanes)
      store(y + row + d, load(total + row + d) * factor * load(weight + d));
  }
}

// dresidual = the gradient of rms_norm_backward + dtotal, which may be null; dx the same, rounded
void add_rms_norm_backward16(const std::uint16_t* dy, const float* dtotal, const float* total, const float* weight,
                             const float* rstd, float* dresidual, std::uint16_t* dx, float* dweight, std::int64_t first,
                             std::int64_t last, std::int64_t width) {
  for (std::int64_t n = first; n < last; ++n) {
    const std::int64_t row = n * width;
    const float factor = rstd[n];
    Vec products{};
    for (std::int64_t d = 0; d < width; d += kLanes) {
      const Vec product = load(dy + row + d) * load(total + row + d);
      products += product * load(weight + d);
      store(dweight + d, load(dweight + d) + product * factor);
    }
    const float mean = sum(products) * factor * factor / static_cast<float>(width);
    for (std::int64_t d = 0; d < width; d += kLanes) {
      Vec gradient = factor * (load(dy + row + d) * load(weight + d) - load(total + row + d) * mean);
      if (dtotal) gradient += load(dtotal + row + d);
      store(dresidual + row + d, gradient);
      store(dx + row + d, gradient);
    }
  }
}

// gate_up [N, 2 width] -> silu(gate) up; width a multiple of kLanes
template <class T>
void swiglu_forward(const T* gate_up, T* y, std::int64_t first, std::int64_t last, std::int64_t width) {
  for (std::int64_t n = first; n < last; ++n) {
    const T* gate = gate_up + 2 * n * width;
    for (std::int64_t f = 0; f < width; f += kLanes) {
      const Vec x = load(gate + f);
      store(y + n * width + f, x * sigmoid(x) * load(gate + width + f));
    }
  }
}

template <class T>
void swiglu_backward(const T* dy, const T* gate_up, T* d_gate_up, std::int64_t first, std::int64_t last,
                     std::int64_t width) {
  for (std::int64_t n = first; n < last; ++n) {
    const T* gate = gate_up + 2 * n * width;
    T* d_gate = d_gate_up + 2 * n * width;
    for (std::int64_t f = 0; f < width; f += kLanes) {
      const Vec x = load(gate + f), up = load(gate + width + f), upstream = load(dy + n * width + f);
      const Vec s = sigmoid(x);
      store(d_gate + f, upstream * up * s * (1.0F + x * (1.0F - s)));
      store(d_gate + width + f, upstream * x * s);
    }
  }
}

// y[t, h] = (a cos - b sin, b cos + a sin) of the halves a, b of x[t, h]; sign -1 turns back. Of cos and sin the first
// half is read; dim / 2 a multiple of kLanes, or smaller than it.
template <class From, class To>
void rope_rotate(const Rotation& r, const From* x, To* y, std::int64_t first, std::int64_t last) {
  const std::int64_t half = r.dim / 2;
  for (std::int64_t t = first; t < last; ++t) {
    // the first half of the table of sin is negative
    const float* c = r.cos + t * r.dim;
    const float* s = r.sin + t * r.dim + half;
    for (std::int64_t h = 0; h < r.heads; ++h) {
      const From* from = x + t * r.token_stride + h * r.head_stride;
      To* to = y + t * r.y_token_stride + h * r.dim;
      std::int64_t d = 0;
      for (; d + kLanes <= half; d += kLanes) {
        const Vec a = load(from + d), b = load(from + half + d), turn = r.sign * load(s + d), stay = load(c + d);
        store(to + d, a * stay - b * turn);
        store(to + half + d, b * stay + a * turn);
      }
      for (; d < half; ++d) {
        const float a = number(from[d]), b = number(from[half + d]), turn = r.sign * s[d];
        put(to + d, a * c[d] - b * turn);
        put(to + half + d, b * c[d] + a * turn);
      }
    }
  }
}

}  // namespace
}  // namespace fastreason
