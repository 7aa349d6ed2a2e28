// A decoder's packed weights and the keys and values of the sequences it continues: prefill and decode on CPU.
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

// Memory at an address that is a multiple of 64, not initialised.
class AlignedMemory {
 public:
  AlignedMemory() = default;
  explicit AlignedMemory(std::int64_t bytes);
  template <class Element>
  Element* as() const {
    return static_cast<Element*>(data_.get());
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* p) const;
  };
  std::unique_ptr<void, Free> data_;
  std::int64_t bytes_ = 0;
};

// In float32, whatever the decoder keeps. Matrices as torch has them, [outputs][inputs].
struct LayerWeights {
  const float *attention_norm, *qkv, *qkv_bias, *out, *mlp_norm, *gate_up, *down;
};
struct ModelWeights {
  const float *embedding, *head, *final_norm;
  std::vector<LayerWeights> layers;
};

// A way to run the forward pass: "amx_bf16", "avx512_bf16", "avx512", "avx2" or "base".
struct ForwardKernel {
  ForwardTile run;
  const char* name;
  Precision precision;
  std::int64_t tile_rows;  // at most, of one call
};
// Those in a precision that this processor can run, the fastest first.
std::vector<ForwardKernel> forward_kernels(Precision precision);

class CpuDecoder {
 public:
  // cos, sin: [positions][head_dim / 2].
  CpuDecoder(const DecoderShape& shape, const ForwardKernel& kernel, const float* cos, const float* sin);

  const DecoderShape& shape() const { return shape_; }

  // What everything below needs, held by the caller.
  OneAtATime& turns() { return turns_; }

  // Bytes of the keys and values of one sequence or prompt.
  std::int64_t kv_bytes(std::int64_t tokens) const;

  // Copies, rounds to the precision and packs.
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
    AlignedMemory memory;
    KvView kv{};
    std::int64_t length = 0;  // 0: free
  };

  // Of prompts that follow each other, whose tokens these are.
  void prefill_some(std::span<const std::int64_t> ids, std::span<const std::int32_t> tokens, float* logits);
  template <class Number>
  void load_as(const ModelWeights& weights);
  std::int64_t tile_rows(std::int64_t rows, int threads) const;
  AlignedMemory take_workspace(std::int64_t context);
  void return_workspace(AlignedMemory workspace);

  OneAtATime turns_{"CpuDecoder"};
  DecoderShape shape_;
  ForwardKernel kernel_;
  AlignedMemory angles_, weights_, own_;
  std::vector<LayerView> layers_;
  ModelView model_{};
  std::int64_t slots_ = 0, capacity_ = 0;
  std::vector<Prompt> prompts_;
  std::mutex mutex_;  // of idle_workspaces_
  std::vector<AlignedMemory> idle_workspaces_;
};

}  // namespace fastreason
