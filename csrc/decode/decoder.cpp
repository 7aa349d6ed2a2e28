#include "decode/decoder.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif
#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

#include "common/amx.h"
#include "common/interrupt.h"
#include "common/parallel.h"

namespace fastreason {

namespace {

constexpr std::align_val_t kAlignment{64};
#ifdef __linux__
constexpr std::uintptr_t kLargePage = std::uintptr_t{2} << 20;
#endif

template <class Number>
Number rounded(float x);
template <>
float rounded<float>(float x) {
  return x;
}
// To the nearest, ties to even; NaN stays NaN.
template <>
Bfloat16 rounded<Bfloat16>(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, quiet_nan = 0x7FC0;
  return static_cast<Bfloat16>((bits & 0x7FFFFFFF) > 0x7F800000 ? quiet_nan : nearest);
}
float widened(float x) { return x; }
float widened(Bfloat16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16); }

std::int64_t whole_lines(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Weights one after the other, each from a multiple of 64 bytes: panels of 16 outputs of a matrix [outputs][inputs],
// zeros behind the last, and rows.
template <class Number>
class Packer {
 public:
  explicit Packer(std::byte* to) : to_(to) {}

  // Where what comes next will lie.
  const std::byte* here() const { return to_; }

  void panel(const float* weights, std::int64_t outputs, std::int64_t inputs, std::int64_t panel) {
    constexpr std::int64_t kStep = kGroup<Number>;
    const std::int64_t first = panel * kLanes, count = std::clamp<std::int64_t>(outputs - first, 0, kLanes);
    const std::int64_t size = padded_inputs<Number>(inputs) * kLanes;
    const std::int64_t in_groups = (inputs + kStep - 1) / kStep * kStep;
    Number* const to = reinterpret_cast<Number*>(to_);
    if (count < kLanes || padded_inputs<Number>(inputs) > inputs) std::fill_n(to, size, Number{});
    row_.assign(static_cast<std::size_t>(in_groups), Number{});
    for (std::int64_t n = 0; n < count; ++n) {
      // rounded by vector code, then moved a group at a time
      const float* const from = weights + (first + n) * inputs;
      for (std::int64_t k = 0; k < inputs; ++k) row_[static_cast<std::size_t>(k)] = rounded<Number>(from[k]);
      for (std::int64_t k = 0; k < in_groups; k += kStep)
        std::memcpy(to + (k / kStep * kLanes + n) * kStep, row_.data() + k, kStep * sizeof(Number));
    }
    to_ += size * static_cast<std::int64_t>(sizeof(Number));
  }

  const void* matrix(const float* weights, std::int64_t outputs, std::int64_t inputs) {
    const void* const begin = to_;
    for (std::int64_t p = 0; p < round_up(outputs) / kLanes; ++p) panel(weights, outputs, inputs, p);
    return begin;
  }

  // As numbers of the precision.
  const void* numbers(const float* values, std::int64_t size) {
    Number* const begin = take<Number>(size);
    for (std::int64_t i = 0; i < size; ++i) begin[i] = rounded<Number>(values[i]);
    return begin;
  }

  // As floats that the precision has, zeros up to a multiple of 16.
  const float* floats(const float* values, std::int64_t size) {
    float* const begin = take<float>(size);
    for (std::int64_t i = 0; i < size; ++i) begin[i] = widened(rounded<Number>(values[i]));
    std::fill(begin + size, begin + round_up(size), 0.0f);
    return begin;
  }

 private:
  template <class Element>
  Element* take(std::int64_t size) {
    Element* const begin = reinterpret_cast<Element*>(to_);
    to_ += whole_lines(size * static_cast<std::int64_t>(sizeof(Element)));
    return begin;
  }

  std::byte* to_;
  std::vector<Number> row_;
};

template <class Number>
std::int64_t packed_bytes(const DecoderShape& s) {
  constexpr std::int64_t kBytes = sizeof(Number);
  const auto matrix = [](std::int64_t outputs, std::int64_t inputs) {
    return round_up(outputs) * padded_inputs<Number>(inputs) * kBytes;
  };
  const auto floats = [](std::int64_t size) { return round_up(size) * std::int64_t{sizeof(float)}; };
  const std::int64_t layer = 2 * floats(s.hidden) + matrix(s.qkv_width(), s.hidden) + floats(s.qkv_width()) +
                             matrix(s.hidden, s.heads * s.head_dim) + 2 * matrix(s.intermediate, s.hidden) +
                             matrix(s.hidden, s.intermediate);
  return s.layers * layer + whole_lines(s.vocab * s.hidden * kBytes) + matrix(s.vocab, s.hidden) + floats(s.hidden);
}

std::int64_t number_bytes(Precision precision) {
  return precision == Precision::kBfloat16 ? sizeof(Bfloat16) : sizeof(float);
}

}  // namespace

AlignedMemory::AlignedMemory(std::int64_t bytes)
    : data_(::operator new(static_cast<std::size_t>(bytes), kAlignment)), bytes_(bytes) {
#ifdef __linux__
  // less than a page of a system that has such large ones is left as it is
  const auto begin = (reinterpret_cast<std::uintptr_t>(data_.get()) + kLargePage - 1) / kLargePage * kLargePage;
  const auto end =
      (reinterpret_cast<std::uintptr_t>(data_.get()) + static_cast<std::size_t>(bytes)) / kLargePage * kLargePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

void AlignedMemory::Free::operator()(void* p) const { ::operator delete(p, kAlignment); }

std::int64_t workspace_floats(const DecoderShape& s, std::int64_t context) {
  const auto matrix = [](std::int64_t height, std::int64_t width) { return height * (round_up(width) + kLanes); };
  const std::int64_t stacked = kAttentionRows * (s.heads / s.kv_heads);
  return matrix(kTileRows, s.hidden) * 2 + matrix(kTileRows, s.qkv_width()) + matrix(kTileRows, s.heads * s.head_dim) +
         matrix(kTileRows, s.intermediate) + matrix(kTileRows, 4 * kLanes) + 3 * matrix(stacked + kLanes, s.head_dim) +
         matrix(stacked, 1) + matrix(stacked + kLanes, context + 2 * kCacheTokens);
}

namespace {

// Its activations should stay in the second cache: [192][1024] floats in one of 2 MiB, half of them in a smaller one.
std::int64_t rows_of_tile() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  if (sysconf(_SC_LEVEL2_CACHE_SIZE) >= 2 << 20) return kTileRows;
#endif
  return kTileRows / 2;
}

}  // namespace

std::vector<ForwardKernel> forward_kernels(Precision precision) {
  std::vector<ForwardKernel> kernels;
  const auto add = [&](const ForwardTiles& tiles, const char* name) {
    const ForwardTile run = precision == Precision::kBfloat16 ? tiles.bfloat16 : tiles.float32;
    if (run != nullptr) kernels.push_back({run, name, precision, rows_of_tile()});
  };
#ifdef FASTREASON_X86_KERNELS
  const bool avx512 = __builtin_cpu_supports("avx512f");
  const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512bf16");
#ifdef FASTREASON_AMX_KERNEL
  // not asked for where nothing in this precision needs them
  if (precision == Precision::kBfloat16 && avx512_bf16 && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && may_use_amx())
    add(forward_amx_bf16(), "amx_bf16");
#endif
  if (avx512_bf16) add(forward_avx512_bf16(), "avx512_bf16");
  if (avx512) add(forward_avx512(), "avx512");
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) add(forward_avx2(), "avx2");
#endif
  add(forward_base(), "base");
  return kernels;
}

CpuDecoder::CpuDecoder(const DecoderShape& shape, const ForwardKernel& kernel, const float* cos, const float* sin)
    : shape_(shape),
      kernel_(kernel),
      angles_(shape.positions * shape.head_dim * std::int64_t{sizeof(float)}),
      weights_(kernel.precision == Precision::kBfloat16 ? packed_bytes<Bfloat16>(shape) : packed_bytes<float>(shape)) {
  const std::int64_t size = shape.positions * shape.head_dim / 2;
  float* const angles = angles_.as<float>();
  std::copy_n(cos, size, angles);
  std::copy_n(sin, size, angles + size);
  model_ = {shape_, nullptr, nullptr, nullptr, nullptr, angles, angles + size};
}

std::int64_t CpuDecoder::kv_bytes(std::int64_t tokens) const {
  return shape_.kv_numbers(cache_room(tokens)) * number_bytes(kernel_.precision);
}

void CpuDecoder::load(const ModelWeights& weights) {
  if (kernel_.precision == Precision::kBfloat16)
    load_as<Bfloat16>(weights);
  else
    load_as<float>(weights);
}

template <class Number>
void CpuDecoder::load_as(const ModelWeights& weights) {
  const DecoderShape& s = shape_;
  Packer<Number> packer(weights_.as<std::byte>());
  layers_.clear();
  for (const LayerWeights& from : weights.layers) {
    LayerView layer{};
    layer.attention_norm = packer.floats(from.attention_norm, s.hidden);
    layer.qkv = packer.matrix(from.qkv, s.qkv_width(), s.hidden);
    layer.qkv_bias = packer.floats(from.qkv_bias, s.qkv_width());
    layer.out = packer.matrix(from.out, s.hidden, s.heads * s.head_dim);
    layer.mlp_norm = packer.floats(from.mlp_norm, s.hidden);
    layer.gate_up = packer.here();
    for (std::int64_t p = 0; p < round_up(s.intermediate) / kLanes; ++p) {
      packer.panel(from.gate_up, s.intermediate, s.hidden, p);
      packer.panel(from.gate_up + s.intermediate * s.hidden, s.intermediate, s.hidden, p);
    }
    layer.down = packer.matrix(from.down, s.hidden, s.intermediate);
    layers_.push_back(layer);
  }
  model_.layers = layers_.data();
  model_.embedding = packer.numbers(weights.embedding, s.vocab * s.hidden);
  model_.head = packer.matrix(weights.head, s.vocab, s.hidden);
  model_.final_norm = packer.floats(weights.final_norm, s.hidden);
  assert(packer.here() == weights_.as<std::byte>() + weights_.bytes());
}

void CpuDecoder::reserve(std::int64_t slots, std::int64_t capacity) {
  prompts_.clear();
  slots_ = capacity_ = 0;  // until there is memory for them
  const std::int64_t size = slots * kv_bytes(capacity);
  if (size > own_.bytes()) {
    own_ = AlignedMemory();  // the old memory goes before the new one comes
    own_ = AlignedMemory(size);
  }
  slots_ = slots;
  capacity_ = cache_room(capacity);
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
      const std::int64_t length = offsets[p + 1] - offsets[p], capacity = cache_room(length);
      prompt.memory = AlignedMemory(kv_bytes(capacity));
      prompt.kv = {prompt.memory.as<void>(), capacity};
      prompt.length = length;
    }
    // enough rows that the last tile, which may be a small one, is one of several
    const std::int64_t enough = 4 * kernel_.tile_rows * count / std::max<std::int64_t>(std::ssize(tokens), 1);
    const std::int64_t share = (count + resolve_threads(threads) - 1) / resolve_threads(threads);
    parallel_blocks(count, threads, std::max<std::int64_t>(std::min(enough, share), 1),
                    [&](std::int64_t begin, std::int64_t end) {
                      const auto p = static_cast<std::size_t>(begin), num = static_cast<std::size_t>(end - begin);
                      const auto first = static_cast<std::size_t>(offsets[p]);
                      const auto last = static_cast<std::size_t>(offsets[p + num]);
                      prefill_some(std::span(ids).subspan(p, num), tokens.subspan(first, last - first),
                                   logits + begin * shape_.vocab);
                    });
  } catch (...) {
    for (const std::int64_t id : ids) release(id);
    throw;
  }
  return ids;
}

void CpuDecoder::prefill_some(std::span<const std::int64_t> ids, std::span<const std::int32_t> tokens, float* logits) {
  std::vector<Row> rows;
  std::int64_t context = 0;
  for (const std::int64_t id : ids) {
    const Prompt& prompt = prompts_[static_cast<std::size_t>(id)];
    context = std::max(context, prompt.length);
    for (std::int64_t t = 0; t < prompt.length; ++t)
      rows.push_back({prompt.kv, {nullptr, 0}, t, 0, tokens[rows.size()], t + 1 == prompt.length});
  }
  AlignedMemory workspace = take_workspace(context);
  const std::int64_t most = tile_rows(std::ssize(rows), 1);
  for (std::int64_t begin = 0; begin < std::ssize(rows); begin += most) {
    interruption_point();
    const Row* const first = rows.data() + begin;
    const std::int64_t count = std::min(most, std::ssize(rows) - begin);
    kernel_.run(model_, first, count, workspace.as<float>(), logits);
    logits += shape_.vocab * std::count_if(first, first + count, [](const Row& row) { return row.has_logits; });
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
  const std::int64_t own_bytes = kv_bytes(capacity_);
  std::vector<Row> rows;
  std::int64_t context = 0;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Prompt& prompt = prompts_[static_cast<std::size_t>(prompts[i])];
    rows.push_back({prompt.kv,
                    {own_.as<std::byte>() + slots[i] * own_bytes, capacity_},
                    prompt.length,
                    lengths[i],
                    tokens[i],
                    true});
    context = std::max(context, prompt.length + lengths[i] + 1);
  }
  const std::int64_t most = tile_rows(std::ssize(rows), threads);
  parallel_blocks(std::ssize(rows), threads, most, [&](std::int64_t begin, std::int64_t end) {
    AlignedMemory workspace = take_workspace(context);
    for (; begin < end; begin += most)
      kernel_.run(model_, rows.data() + begin, std::min(most, end - begin), workspace.as<float>(),
                  logits + begin * shape_.vocab);
    return_workspace(std::move(workspace));
  });
}

// So that tiles are about equal, and no more than one for each thread if they suffice.
std::int64_t CpuDecoder::tile_rows(std::int64_t rows, int threads) const {
  const auto divided = [](std::int64_t n, std::int64_t by) { return (n + by - 1) / by; };
  const std::int64_t workers = std::min<std::int64_t>(resolve_threads(threads), divided(rows, kLanes));
  const std::int64_t rounds = divided(rows, std::max<std::int64_t>(workers, 1) * kernel_.tile_rows);
  const std::int64_t tiles = std::max<std::int64_t>(workers * rounds, 1);
  return std::clamp(round_up(divided(rows, tiles)), kLanes, kernel_.tile_rows);
}

AlignedMemory CpuDecoder::take_workspace(std::int64_t context) {
  const std::int64_t size = workspace_floats(shape_, context) * std::int64_t{sizeof(float)};
  {
    const std::lock_guard lock(mutex_);
    while (!idle_workspaces_.empty()) {
      AlignedMemory found = std::move(idle_workspaces_.back());
      idle_workspaces_.pop_back();
      if (found.bytes() >= size) return found;
    }
  }
  // room to grow, so that not every longer context asks again
  return AlignedMemory(size + size / 4);
}

void CpuDecoder::return_workspace(AlignedMemory workspace) {
  const std::lock_guard lock(mutex_);
  idle_workspaces_.push_back(std::move(workspace));
}

}  // namespace fastreason
