// One forward pass of a Qwen2-shaped decoder over a tile of rows on CPU, in float32 or in bfloat16.
//
// Every row is computed by itself, in an order that depends on nothing but its own history: each element of a matrix
// product is one chain of multiply-adds over the inner dimension (in steps of 32 with AMX), whatever rows stand beside
// it. So a sequence gets the same bits in any batch, order or number of threads of one machine.
//
// In bfloat16 weights, keys and values are kept in it, and the left side of every matrix product is rounded to it. All
// else is float32: sums, the residual stream, norms, rotary embedding, softmax, gating and logits.
//
// The code is compiled once per instruction set (forward_*.cpp); only plain structs and pointers pass between, so that
// no inline function of the standard library is compiled for a processor that may not run it.
#pragma once

#include <cstdint>

namespace fastreason {

// Columns of a panel of a packed matrix, and tokens that a block of cached keys holds.
inline constexpr std::int64_t kLanes = 16;
// A cache has room for a multiple of so many tokens, as attention sums over 32 at once where there is AMX.
inline constexpr std::int64_t kCacheTokens = 32;

constexpr std::int64_t round_up(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }
constexpr std::int64_t cache_room(std::int64_t tokens) {
  return (tokens + kCacheTokens - 1) / kCacheTokens * kCacheTokens;
}

// The upper half of a float.
using Bfloat16 = std::uint16_t;

// Of weights, keys and values.
enum class Precision { kFloat32, kBfloat16 };

// The right side of a matrix product has this many rows k side by side, so many as one instruction multiplies: element
// (k, n) of a panel is at (k / kGroup * 16 + n) * kGroup + k % kGroup.
template <class Number>
inline constexpr std::int64_t kGroup = sizeof(float) / sizeof(Number);

// Packed weights have a multiple of this many inputs, as many as AMX multiplies at once; zeros follow the last.
template <class Number>
inline constexpr std::int64_t kInputs = sizeof(Number) == sizeof(float) ? 1 : 32;

template <class Number>
constexpr std::int64_t padded_inputs(std::int64_t inputs) {
  return (inputs + kInputs<Number> - 1) / kInputs<Number> * kInputs<Number>;
}

struct DecoderShape {
  std::int64_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, positions;
  float eps;

  std::int64_t qkv_width() const { return (heads + 2 * kv_heads) * head_dim; }
  std::int64_t padded_head_dim() const { return round_up(head_dim); }
  // Numbers in the keys and values of `tokens` (a multiple of kCacheTokens) in one layer and key-value head, see
  // KvView.
  std::int64_t head_numbers(std::int64_t tokens) const { return tokens * (head_dim + padded_head_dim()); }
  std::int64_t kv_numbers(std::int64_t tokens) const { return layers * kv_heads * head_numbers(tokens); }
};

// Matrices are packed, of floats or Bfloat16: panel j holds the weights of outputs 16 j .. 16 j + 15 as
// [padded inputs / kGroup][16][kGroup], zeros behind the last. gate_up: panels of gate and up in turns.
struct LayerView {
  const float *attention_norm, *qkv_bias, *mlp_norm;
  const void *qkv, *out, *gate_up, *down;
};

struct ModelView {
  DecoderShape shape;
  const LayerView* layers;
  const void* embedding;  // floats or Bfloat16 [vocab][hidden]
  const void* head;       // packed
  const float* final_norm;
  const float *cos, *sin;  // [positions][head_dim / 2]
};

// Keys and values of up to `capacity` (a multiple of kCacheTokens) tokens, floats or Bfloat16: for each layer and
// key-value head the keys as blocks [capacity / 16][head_dim / kGroup][16][kGroup], then the values as [capacity /
// kGroup][padded head dim][kGroup].
struct KvView {
  void* data;
  std::int64_t capacity;
};

// One new token: it attends to the first `prefix_length` tokens of `prefix`, to the first `own_length` of `own` and to
// itself. Its keys and values become token `own_length` of `own`; where own.data is null it is a prompt's token itself:
// they become token `prefix_length` of `prefix`.
struct Row {
  KvView prefix, own;
  std::int64_t prefix_length, own_length;
  std::int32_t token;
  bool has_logits;  // whether they are wanted
};

// Most rows of a tile, a multiple of 6, the rows of a register tile. The more, the less often weights are read.
inline constexpr std::int64_t kTileRows = 192;
// Rows that attend to one prefix together.
inline constexpr std::int64_t kAttentionRows = 16;

// Floats of scratch memory, aligned to 64 bytes, that a tile needs when no row sees more than `context` tokens.
std::int64_t workspace_floats(const DecoderShape& shape, std::int64_t context);

// logits: [rows that want them][vocab]. Rows of a prompt must follow each other in order; num_rows at most
// kTileRows. Rows with one prefix should stand together.
using ForwardTile = void (*)(const ModelView& model, const Row* rows, std::int64_t num_rows, float* workspace,
                             float* logits);

// One for each precision.
struct ForwardTiles {
  ForwardTile float32, bfloat16;
};

ForwardTiles forward_base();
#ifdef FASTREASON_X86_KERNELS
ForwardTiles forward_avx2();
ForwardTiles forward_avx512();
// In float32 the same as forward_avx512, which is not built again: null.
ForwardTiles forward_avx512_bf16();
#endif
#ifdef FASTREASON_AMX_KERNEL
// In bfloat16 alone, too.
ForwardTiles forward_amx_bf16();
#endif

}  // namespace fastreason
