// Float32 kernels of the CPU, compiled once for every instruction set and picked at run time.
#pragma once

#include <cstdint>

namespace fastreason {

// float [tokens, heads, dim] whose last dimension is contiguous.
struct Heads {
  const float* data;
  std::int64_t token_stride, head_stride;
  // always inline: the linker must not give one instruction set the function of another
  __attribute__((always_inline)) const float* at(std::int64_t token, std::int64_t head) const {
    return data + token * token_stride + head * head_stride;
  }
};

struct AttentionShape {
  std::int64_t tokens, heads, group, dim;  // `group` query heads use one KV head; dim a multiple of 16
  float scale;
};

struct AttentionSegment {
  std::int64_t start, length, prefix_start, prefix_length;  // a prefix of length 0: none
};

// o, d_o and dq [tokens, heads, dim], dk and dv [tokens, heads / group, dim], lse [heads, tokens]; all contiguous.
struct AttentionGradients {
  const float* d_o;
  const float* o;
  const float* lse;
  float* dq;
  float* dk;
  float* dv;
};

// Each works on rows first .. last - 1, or on one segment and KV head; widths are multiples of 16 but for the loss.
// What they compute stands at their definitions in attention.h, pointwise.h and loss.h.
struct Kernels {
  const char* name;
  int lanes;
  void (*attention_forward)(const AttentionSegment&, const AttentionShape&, const Heads& q, const Heads& k,
                            const Heads& v, std::int64_t kv_head, float* o, float* lse, float* scratch);
  void (*attention_backward)(const AttentionSegment&, const AttentionShape&, const Heads& q, const Heads& k,
                             const Heads& v, std::int64_t kv_head, const AttentionGradients&, float* scratch);
  void (*rms_norm_forward)(const float* x, const float* weight, float* y, float* rstd, std::int64_t first,
                           std::int64_t last, std::int64_t width, float eps);
  void (*rms_norm_backward)(const float* dy, const float* x, const float* weight, const float* rstd, float* dx,
                            float* dweight, std::int64_t first, std::int64_t last, std::int64_t width);
  void (*swiglu_forward)(const float* gate_up, float* y, std::int64_t first, std::int64_t last, std::int64_t width);
  void (*swiglu_backward)(const float* dy, const float* gate_up, float* d_gate_up, std::int64_t first,
                          std::int64_t last, std::int64_t width);
  void (*rope_rotate)(const float* x, std::int64_t token_stride, std::int64_t head_stride, const float* cos,
                      const float* sin, float* y, std::int64_t first, std::int64_t last, std::int64_t heads,
                      std::int64_t dim, float sign);
  void (*cross_entropy_rows)(const float* logits, std::int64_t row_stride, const std::int64_t* labels,
                             const float* shares, float z_loss, float* losses, float* gradient, std::int64_t first,
                             std::int64_t last, std::int64_t width);
};

// Floats of scratch that attention of one segment needs: keys its prefix and itself have.
std::int64_t attention_scratch(std::int64_t keys, std::int64_t dim);

const Kernels& kernels_of_baseline();
#if defined(__x86_64__)
const Kernels& kernels_of_avx2();
const Kernels& kernels_of_avx512();
#endif

// The widest that this processor runs; or of this name (for tests), or null if it does not run that.
const Kernels& kernels();
const Kernels* find_kernels(const char* name);

}  // namespace fastreason
