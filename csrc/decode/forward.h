// One forward pass of a Qwen2-shaped decoder over a tile of rows in float32, on CPU.
//
// Every row is computed by itself, in an order that depends on nothing but its own history: each element of a matrix
// product is one chain of multiply-adds over the inner dimension, whatever rows stand beside it. So a sequence gets the
// same bits in any batch, order or number of threads of one machine.
//
// The code is compiled once per instruction set (forward_*.cpp); only plain structs and pointers pass between, so that
// no inline function of the standard library is compiled for a processor that may not run it.
#pragma once

#include <cstdint>

namespace fastreason {

// Floats a panel of a packed matrix is wide, and tokens a block of cached keys holds.
inline constexpr std::int64_t kLanes = 16;

constexpr std::int64_t round_up(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

struct DecoderShape {
  std::int64_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, positions;
  float eps;

  std::int64_t qkv_width() const { return (heads + 2 * kv_heads) * head_dim; }
  std::int64_t padded_head_dim() const { return round_up(head_dim); }
  // Floats of the keys and values of `tokens` (a multiple of kLanes) in one layer and key-value head, see KvView.
  std::int64_t head_floats(std::int64_t tokens) const { return tokens * (head_dim + padded_head_dim()); }
  std::int64_t kv_floats(std::int64_t tokens) const { return layers * kv_heads * head_floats(tokens); }
};

// Matrices are packed: panel j holds the weights of outputs 16 j .. 16 j + 15 as [inputs][16], zeros behind the last.
// gate_up: panels of gate and up in turns.
struct LayerView {
  const float *attention_norm, *qkv, *qkv_bias, *out, *mlp_norm, *gate_up, *down;
};

struct ModelView {
  DecoderShape shape;
  const LayerView* layers;
  const float* embedding;  // [vocab][hidden]
  const float* head;       // packed
  const float* final_norm;
  const float *cos, *sin;  // [positions][head_dim / 2]
};

// Keys and values of up to `capacity` (a multiple of kLanes) tokens: for each layer and key-value head the keys as
// blocks [capacity / 16][head_dim][16], then the values as [capacity][padded head dim].
struct KvView {
  float* data;
  std::int64_t capacity;
};

// One new token: it attends to the first `prefix_length` tokens of `prefix`, to the first `own_length` of `own` and to
// itself. Its keys and values become token `own_length` of `own`; where own.data is null it is a prompt's token itself:
// they become token `prefix_length` of `prefix`.
struct Row {
  KvView prefix, own;
  std::int64_t prefix_length, own_length;
  std::int32_t token;
};

// Most rows of a tile. A multiple of 12, the rows of a register tile; [96][1024] floats stay in a cache of 1 MiB.
inline constexpr std::int64_t kTileRows = 96;
// Rows that attend to one prefix together.
inline constexpr std::int64_t kAttentionRows = 16;

// Floats of scratch memory, aligned to 64 bytes, that a tile needs when no row sees more than `context` tokens.
std::int64_t workspace_floats(const DecoderShape& shape, std::int64_t context);

// logits: [num_rows][vocab]; null to only fill the caches, or the last row's alone with last_only. Rows of a prompt
// must follow each other in order; num_rows <= kTileRows. Rows with one prefix should stand together.
using ForwardTile = void (*)(const ModelView& model, const Row* rows, std::int64_t num_rows, float* workspace,
                             float* logits, bool last_only);

void forward_tile_base(const ModelView&, const Row*, std::int64_t, float*, float*, bool);
#ifdef FASTREASON_X86_KERNELS
void forward_tile_avx2(const ModelView&, const Row*, std::int64_t, float*, float*, bool);
void forward_tile_avx512(const ModelView&, const Row*, std::int64_t, float*, float*, bool);
#endif

}  // namespace fastreason
