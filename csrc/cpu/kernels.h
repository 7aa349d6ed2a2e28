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

// As Heads, of bfloat16.
struct Heads16 {
  const std::uint16_t* data;
  std::int64_t token_stride, head_stride;
  __attribute__((always_inline)) const std::uint16_t* at(std::int64_t token, std::int64_t head) const {
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

// In bfloat16: o and d_o as above, dk, dv and lse in float32. dq is turned back by the angles [tokens, dim] of rope.
struct AttentionGradients16 {
  const std::uint16_t* d_o;
  const std::uint16_t* o;
  const float *lse, *cos, *sin;
  std::uint16_t* dq;
  std::int64_t dq_token_stride;  // heads are adjacent
  float* dk;
  float* dv;
};

// Rows of float32 or bfloat16; `data` may be null.
struct Rows {
  void* data;
  std::int64_t stride;
  bool bfloat16;
  __attribute__((always_inline)) float* row(std::int64_t n) const { return static_cast<float*>(data) + n * stride; }
  __attribute__((always_inline)) std::uint16_t* row16(std::int64_t n) const {
    return static_cast<std::uint16_t*>(data) + n * stride;
  }
};

// Rows of bfloat16.
struct Matrix16 {
  const std::uint16_t* data;
  std::int64_t stride;
  __attribute__((always_inline)) const std::uint16_t* row(std::int64_t n) const { return data + n * stride; }
};

// dw [outputs, inputs] = dy^T x, of dy [rows, outputs] and x [rows, inputs].
struct WeightGradient {
  Matrix16 dy, x;
  float* dw;
  std::int64_t rows, outputs, inputs;
};

enum class PolicyKind { kClipped, kCispo, kReinforce };

// The policy loss of kernels/policy_loss.py. Vectors have one number a row; those that may be null are marked.
struct PolicyLoss {
  Rows logits, reference_logits, gradient;  // the last two may be null
  std::int64_t width;
  const std::int64_t* tokens;
  const float *weights, *advantages;
  const float *old, *importance, *reference, *log_ratios;  // null: not given; log_ratios: not those of the tokens
  float* logprobs;
  PolicyKind kind;
  int estimator;  // k1, k2 or k3
  float inverse_temperature, clip_low, clip_high, clip_dual, kl_coef, entropy_coef;
};

// In the order of STATISTICS in kernels/policy_loss_triton.py.
constexpr int kPolicySums = 8, kPolicyMaxima = 3;
struct PolicyTotals {
  double sums[kPolicySums];
  float maxima[kPolicyMaxima];
};
// Raises a maximum to x; NaN stays, so that it is seen.
__attribute__((always_inline)) inline void raise_to(float& maximum, float x) {
  if (maximum == maximum && !(x <= maximum)) maximum = x;
}

// Angles are [tokens, dim]; the stride of heads in y is dim.
struct Rotation {
  const float *cos, *sin;
  std::int64_t token_stride, head_stride, y_token_stride, heads, dim;  // of x but for the one of y
  float sign;
};

// Products of bfloat16 by tile registers, see attention_tiles.h and weight_gradient.h; dim is a multiple of 32.
struct TileKernels {
  std::int64_t (*attention_scratch)(std::int64_t keys, std::int64_t dim);  // in floats, as the next one
  std::int64_t (*weight_gradient_scratch)(const WeightGradient&, std::int64_t columns);
  void (*attention_forward)(const AttentionSegment&, const AttentionShape&, const Heads16& q, const Heads16& k,
                            const Heads16& v, std::int64_t kv_head, std::uint16_t* o, float* lse, float* scratch);
  void (*attention_backward)(const AttentionSegment&, const AttentionShape&, const Heads16& q, const Heads16& k,
                             const Heads16& v, std::int64_t kv_head, const AttentionGradients16&, float* scratch);
  void (*pack_narrow)(const WeightGradient&, std::int64_t first, std::int64_t last, std::uint16_t* narrow);
  void (*weight_gradient)(const WeightGradient&, const std::uint16_t* narrow, std::int64_t first, std::int64_t last,
                          float* scratch);
};

// Each works on rows first .. last - 1, or on one segment and KV head; widths are multiples of 16 but for the loss.
// What they compute stands at their definitions in attention.h, pointwise.h, loss.h and policy_loss.h; those whose
// names end in 16 read and write bfloat16, and compute in float32.
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
  void (*rope_rotate)(const Rotation&, const float* x, float* y, std::int64_t first, std::int64_t last);
  void (*cross_entropy_rows)(const float* logits, std::int64_t row_stride, const std::int64_t* labels,
                             const float* shares, float z_loss, float* losses, float* gradient, std::int64_t first,
                             std::int64_t last, std::int64_t width);
  void (*widen)(const std::uint16_t* from, float* to, std::int64_t count);   // bfloat16 to float32
  void (*narrow)(const float* from, std::uint16_t* to, std::int64_t count);  // and back, to the nearest
  void (*policy_loss_rows)(const PolicyLoss&, std::int64_t first, std::int64_t last, PolicyTotals&, float* scratch);
  void (*add_rms_norm_forward16)(const std::uint16_t* x, const float* residual, const float* weight, float* total,
                                 std::uint16_t* y, float* rstd, std::int64_t first, std::int64_t last,
                                 std::int64_t width, float eps);
  void (*add_rms_norm_backward16)(const std::uint16_t* dy, const float* dtotal, const float* total, const float* weight,
                                  const float* rstd, float* dresidual, std::uint16_t* dx, float* dweight,
                                  std::int64_t first, std::int64_t last, std::int64_t width);
  void (*swiglu_forward16)(const std::uint16_t* gate_up, std::uint16_t* y, std::int64_t first, std::int64_t last,
                           std::int64_t width);
  void (*swiglu_backward16)(const std::uint16_t* dy, const std::uint16_t* gate_up, std::uint16_t* d_gate_up,
                            std::int64_t first, std::int64_t last, std::int64_t width);
  void (*rope_rotate16)(const Rotation&, const std::uint16_t* x, std::uint16_t* y, std::int64_t first,
                        std::int64_t last);
  void (*rope_narrow)(const Rotation&, const float* x, std::uint16_t* y, std::int64_t first, std::int64_t last);
  const TileKernels* tiles;  // null: this instruction set has none
};

// Floats of scratch that attention of one segment needs: keys its prefix and itself have.
std::int64_t attention_scratch(std::int64_t keys, std::int64_t dim);

const Kernels& kernels_of_baseline();
#if defined(__x86_64__)
const Kernels& kernels_of_avx2();
const Kernels& kernels_of_avx512();
const Kernels& kernels_of_amx();  // where the compiler knows them
#endif

// The widest that this processor runs; or of this name (for tests), or null if it does not run that.
const Kernels& kernels();
const Kernels* find_kernels(const char* name);

}  // namespace fastreason
