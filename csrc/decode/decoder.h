// A decoder's packed weights and the keys and values of the sequences it continues: prefill and decode on CPU in
// float32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "common/one_at_a_time.h"
#include "decode/forward.h"

namespace fastreason {

// Floats at an address that is a multiple of 64, not initialised.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(std::int64_t size);
  float* data() const { return data_.get(); }
  std::int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const;
  };
  std::unique_ptr<float[], Free> data_;
  std::int64_t size_ = 0;
};

// Matrices as torch keeps them, [outputs][inputs].
struct LayerWeights {
  const float *attention_norm, *qkv, *qkv_bias, *out, *mlp_norm, *gate_up, *down;
};
struct ModelWeights {
  const float *embedding, *head, *final_norm;
  std::vector<LayerWeights> layers;
};

// A way to run the forward pass: "avx512", "avx2" or "base".
struct ForwardKernel {
  ForwardTile run;
  const char* name;
};
// Those that this processor can run, the fastest first.
std::vector<ForwardKernel> forward_kernels();

class CpuDecoder {
 public:
  // cos, sin: [positions][head_dim / 2].
  CpuDecoder(const DecoderShape& shape, ForwardTile forward, const float* cos, const float* sin);

  const DecoderShape& shape() const { return shape_; }

  // What everything below needs, held by the caller.
  OneAtATime& turns() { return turns_; }

  // Copies and packs.
  void load(const ModelWeights& weights);
  bool is_loaded() const { return !layers_.empty(); }

  // Room for `slots` sequences of up to `capacity` new tokens; forgets all prompts.
  void reserve(std::int64_t slots, std::int64_t capacity);
  std::int64_t slots() const { return slots_; }
  std::int64_t capacity() const { return capacity_; }

  // Fills a cache for each prompt, tokens offsets[p] .. offsets[p + 1] - 1; logits behind its last token: [P][vocab].
  // Returns the prompts' numbers, which are used again once released. Where it throws, none is held.
  std::vector<std::int64_t> prefill(std::span<const std::int32_t> tokens, std::span<const std::int64_t> offsets,
                                    float* logits, int threads);
  void release(std::int64_t prompt);
  bool holds(std::int64_t prompt) const;
  // Whether a sequence behind a held prompt can have a token more than `length` of its own.
  bool has_room(std::int64_t prompt, std::int64_t length) const;

  // One token for each of N sequences: sequence i is in slot slots[i], follows prompt prompts[i] and has lengths[i]
  // tokens of its own before this one. logits: [N][vocab].
  void decode(std::span<const std::int64_t> slots, std::span<const std::int64_t> prompts,
              std::span<const std::int64_t> lengths, std::span<const std::int32_t> tokens, float* logits, int threads);

 private:
  struct Prompt {
    AlignedFloats memory;
    KvView kv{};
    std::int64_t length = 0;  // 0: free
  };

  void prefill_one(Prompt& prompt, std::span<const std::int32_t> tokens, float* logits);
  AlignedFloats take_workspace(std::int64_t context);
  void return_workspace(AlignedFloats workspace);

  OneAtATime turns_{"CpuDecoder"};
  DecoderShape shape_;
  ForwardTile forward_;
  AlignedFloats angles_, weights_, own_;
  std::vector<LayerView> layers_;
  ModelView model_{};
  std::int64_t slots_ = 0, capacity_ = 0;
  std::vector<Prompt> prompts_;
  std::mutex mutex_;  // of idle_workspaces_
  std::vector<AlignedFloats> idle_workspaces_;
};

}  // namespace fastreason
