#include "decode/decoder.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>
#include <utility>

#include "common/interrupt.h"
#include "common/parallel.h"

namespace fastreason {

namespace {

constexpr std::align_val_t kAlignment{64};

// Panels of 16 outputs of a matrix [outputs][inputs], zeros behind the last.
class Packer {
 public:
  explicit Packer(float* to) : to_(to) {}

  // Where what comes next will lie.
  const float* here() const { return to_; }

  void panel(const float* weights, std::int64_t outputs, std::int64_t inputs, std::int64_t panel) {
    const std::int64_t first = panel * kLanes, count = std::clamp<std::int64_t>(outputs - first, 0, kLanes);
    if (count < kLanes) std::fill_n(to_, inputs * kLanes, 0.0f);
    for (std::int64_t n = 0; n < count; ++n)
      for (std::int64_t k = 0; k < inputs; ++k) to_[k * kLanes + n] = weights[(first + n) * inputs + k];
    to_ += inputs * kLanes;
  }

  const float* matrix(const float* weights, std::int64_t outputs, std::int64_t inputs) {
    const float* const begin = to_;
    for (std::int64_t p = 0; p < round_up(outputs) / kLanes; ++p) panel(weights, outputs, inputs, p);
    return begin;
  }

  const float* row(const float* values, std::int64_t size) {
    float* const begin = to_;
    std::copy_n(values, size, to_);
    to_ += round_up(size);
    std::fill(begin + size, to_, 0.0f);
    return begin;
  }

 private:
  float* to_;
};

std::int64_t packed_floats(const DecoderShape& s) {
  const std::int64_t attended = s.heads * s.head_dim, wide = round_up(s.intermediate);
  const std::int64_t layer = 2 * round_up(s.hidden) + round_up(s.qkv_width()) * (s.hidden + 1) +
                             round_up(s.hidden) * (attended + s.intermediate) + 2 * wide * s.hidden;
  return s.layers * layer + round_up(s.vocab * s.hidden) + round_up(s.vocab) * s.hidden + round_up(s.hidden);
}

}  // namespace

AlignedFloats::AlignedFloats(std::int64_t size)
    : data_(static_cast<float*>(::operator new[](static_cast<std::size_t>(size) * sizeof(float), kAlignment))),
      size_(size) {}

void AlignedFloats::Free::operator()(float* p) const { ::operator delete[](p, kAlignment); }

std::int64_t workspace_floats(const DecoderShape& s, std::int64_t context) {
  const auto matrix = [](std::int64_t rows, std::int64_t width) { return rows * (round_up(width) + kLanes); };
  const std::int64_t stacked = kAttentionRows * (s.heads / s.kv_heads);
  return matrix(kTileRows, s.hidden) * 2 + matrix(kTileRows, s.qkv_width()) + matrix(kTileRows, s.heads * s.head_dim) +
         matrix(kTileRows, s.intermediate) + matrix(kTileRows, 2 * kLanes) + matrix(stacked, 2 * s.padded_head_dim()) +
         matrix(stacked, 1) + matrix(stacked, context + 2 * kLanes);
}

std::vector<ForwardKernel> forward_kernels() {
  std::vector<ForwardKernel> kernels;
#ifdef FASTREASON_X86_KERNELS
  if (__builtin_cpu_supports("avx512f")) kernels.push_back({forward_tile_avx512, "avx512"});
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels.push_back({forward_tile_avx2, "avx2"});
#endif
  kernels.push_back({forward_tile_base, "base"});
  return kernels;
}

CpuDecoder::CpuDecoder(const DecoderShape& shape, ForwardTile forward, const float* cos, const float* sin)
    : shape_(shape), forward_(forward), angles_(shape.positions * shape.head_dim), weights_(packed_floats(shape)) {
  const std::int64_t size = shape.positions * shape.head_dim / 2;
  std::copy_n(cos, size, angles_.data());
  std::copy_n(sin, size, angles_.data() + size);
  model_ = {shape_, nullptr, nullptr, nullptr, nullptr, angles_.data(), angles_.data() + size};
}

void CpuDecoder::load(const ModelWeights& weights) {
  const DecoderShape& s = shape_;
  Packer packer(weights_.data());
  layers_.clear();
  for (const LayerWeights& from : weights.layers) {
    LayerView layer{};
    layer.attention_norm = packer.row(from.attention_norm, s.hidden);
    layer.qkv = packer.matrix(from.qkv, s.qkv_width(), s.hidden);
    layer.qkv_bias = packer.row(from.qkv_bias, s.qkv_width());
    layer.out = packer.matrix(from.out, s.hidden, s.heads * s.head_dim);
    layer.mlp_norm = packer.row(from.mlp_norm, s.hidden);
    layer.gate_up = packer.here();
    for (std::int64_t p = 0; p < round_up(s.intermediate) / kLanes; ++p) {
      packer.panel(from.gate_up, s.intermediate, s.hidden, p);
      packer.panel(from.gate_up + s.intermediate * s.hidden, s.intermediate, s.hidden, p);
    }
    layer.down = packer.matrix(from.down, s.hidden, s.intermediate);
    layers_.push_back(layer);
  }
  model_.layers = layers_.data();
  model_.embedding = packer.row(weights.embedding, s.vocab * s.hidden);
  model_.head = packer.matrix(weights.head, s.vocab, s.hidden);
  model_.final_norm = packer.row(weights.final_norm, s.hidden);
  assert(packer.here() == weights_.data() + weights_.size());
}

void CpuDecoder::reserve(std::int64_t slots, std::int64_t capacity) {
  prompts_.clear();
  slots_ = capacity_ = 0;  // until there is memory for them
  const std::int64_t size = slots * shape_.kv_floats(round_up(capacity));
  if (size > own_.size()) {
    own_ = AlignedFloats();  // the old memory goes before the new one comes
    own_ = AlignedFloats(size);
  }
  slots_ = slots;
  capacity_ = round_up(capacity);
}

std::vector<std::int64_t> CpuDecoder::prefill(std::span<const std::int32_t> tokens,
                                              std::span<const std::int64_t> offsets, float* logits, int threads) {
  const std::int64_t count = std::ssize(offsets) - 1;
  std::vector<std::int64_t> ids;
  try {
    for (std::int64_t id = 0; std::ssize(ids) < count; ++id) {
      if (id == std::ssize(prompts_)) prompts_.emplace_back();
      Prompt& prompt = prompts_[static_cast<std::size_t>(id)];
      if (prompt.length != 0) continue;
      const auto p = ids.size();
      ids.push_back(id);
      const std::int64_t length = offsets[p + 1] - offsets[p], capacity = round_up(length);
      prompt.memory = AlignedFloats(shape_.kv_floats(capacity));
      prompt.kv = {prompt.memory.data(), capacity};
      prompt.length = length;
    }
    parallel_blocks(count, threads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto p = static_cast<std::size_t>(i);
        const auto first = static_cast<std::size_t>(offsets[p]), last = static_cast<std::size_t>(offsets[p + 1]);
        prefill_one(prompts_[static_cast<std::size_t>(ids[p])], tokens.subspan(first, last - first),
                    logits + i * shape_.vocab);
      }
    });
  } catch (...) {
    for (const std::int64_t id : ids) release(id);
    throw;
  }
  return ids;
}

void CpuDecoder::prefill_one(Prompt& prompt, std::span<const std::int32_t> tokens, float* logits) {
  const std::int64_t length = prompt.length;
  AlignedFloats workspace = take_workspace(length);
  std::vector<Row> rows;
  for (std::int64_t begin = 0; begin < length; begin += kTileRows) {
    interruption_point();
    const std::int64_t end = std::min(length, begin + kTileRows);
    rows.clear();
    for (std::int64_t t = begin; t < end; ++t)
      rows.push_back({prompt.kv, {nullptr, 0}, t, 0, tokens[static_cast<std::size_t>(t)]});
    forward_(model_, rows.data(), end - begin, workspace.data(), end == length ? logits : nullptr, true);
  }
  return_workspace(std::move(workspace));
}

void CpuDecoder::release(std::int64_t prompt) { prompts_[static_cast<std::size_t>(prompt)] = Prompt(); }

bool CpuDecoder::holds(std::int64_t prompt) const {
  return prompt >= 0 && prompt < std::ssize(prompts_) && prompts_[static_cast<std::size_t>(prompt)].length > 0;
}

bool CpuDecoder::has_room(std::int64_t prompt, std::int64_t length) const {
  return length >= 0 && length < capacity_ &&
         prompts_[static_cast<std::size_t>(prompt)].length + length < shape_.positions;
}

void CpuDecoder::decode(std::span<const std::int64_t> slots, std::span<const std::int64_t> prompts,
                        std::span<const std::int64_t> lengths, std::span<const std::int32_t> tokens, float* logits,
                        int threads) {
  const std::int64_t own_floats = shape_.kv_floats(capacity_);
  std::vector<Row> rows;
  std::int64_t context = 0;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Prompt& prompt = prompts_[static_cast<std::size_t>(prompts[i])];
    rows.push_back({prompt.kv, {own_.data() + slots[i] * own_floats, capacity_}, prompt.length, lengths[i], tokens[i]});
    context = std::max(context, prompt.length + lengths[i] + 1);
  }
  parallel_blocks(std::ssize(rows), threads, kTileRows, [&](std::int64_t begin, std::int64_t end) {
    AlignedFloats workspace = take_workspace(context);
    for (; begin < end; begin += kTileRows)
      forward_(model_, rows.data() + begin, std::min(kTileRows, end - begin), workspace.data(),
               logits + begin * shape_.vocab, false);
    return_workspace(std::move(workspace));
  });
}

AlignedFloats CpuDecoder::take_workspace(std::int64_t context) {
  const std::int64_t size = workspace_floats(shape_, context);
  {
    const std::lock_guard lock(mutex_);
    while (!idle_workspaces_.empty()) {
      AlignedFloats found = std::move(idle_workspaces_.back());
      idle_workspaces_.pop_back();
      if (found.size() >= size) return found;
    }
  }
  // room to grow, so that not every longer context asks again
  return AlignedFloats(size + size / 4);
}

void CpuDecoder::return_workspace(AlignedFloats workspace) {
  const std::lock_guard lock(mutex_);
  idle_workspaces_.push_back(std::move(workspace));
}

}  // namespace fastreason
