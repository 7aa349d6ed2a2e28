// Causal attention of one segment, one KV head and the query heads that use it; what kernels/attention.py defines.
#pragma once

#include "cpu/attention_rows.h"
#include "cpu/products.h"

namespace fastreason {
namespace {

constexpr std::int64_t kForwardRows = 12;   // queries at a time: a tile of scores stays in the first cache
constexpr std::int64_t kBackwardRows = 48;  // more, so that a product over queries is not all loads and stores

// Keys that the queries first .. last - 1 of a segment see together, in whole vectors.
FASTREASON_INLINE std::int64_t seen(const AttentionSegment& s, std::int64_t last) {
  return round_up(s.prefix_length + last, kLanes);
}

// The keys (or values) of the segment: as rows, and transposed; zeros up to `padded` keys.
void pack(const AttentionSegment& s, const Heads& x, std::int64_t head, std::int64_t dim, std::int64_t padded,
          float* rows, float* transposed) {
  const std::int64_t keys = s.prefix_length + s.length;
  for (std::int64_t j = 0; j < padded; ++j) {
    const float* from = j < keys ? x.at(key_token(s, j), head) : nullptr;
    for (std::int64_t d = 0; d < dim; ++d) {
      const float value = from ? from[d] : 0.0F;
      if (rows) rows[j * dim + d] = value;
      if (transposed) transposed[d * padded + j] = value;
    }
  }
}

// Scores of one query -> exp(scale * score - shift), zeros behind the last key it sees; returns the sum.
FASTREASON_INLINE float exponentials(float* row, std::int64_t visible, std::int64_t padded, float scale, float shift) {
  Vec total{};
  std::int64_t j = 0;
  for (; j + kLanes <= visible; j += kLanes) {
    const Vec e = exponential(load(row + j) * scale - shift);
    store(row + j, e);
    total += e;
  }
  if (j < visible) {
    const Vec e = first_lanes(visible - j, exponential(load(row + j) * scale - shift), Vec{});
    store(row + j, e);
    total += e;
    j += kLanes;
  }
  for (; j < padded; j += kLanes) store(row + j, Vec{});
  return sum(total);
}

void attention_forward(const AttentionSegment& s, const AttentionShape& shape, const Heads& q, const Heads& k,
                       const Heads& v, std::int64_t kv_head, float* o, float* lse, float* scratch) {
  const std::int64_t dim = shape.dim, padded = seen(s, s.length), o_row = shape.heads * dim;
  float* keys = scratch;                // [dim, padded]
  float* values = keys + dim * padded;  // [padded, dim]
  float* tile = values + dim * padded;  // [kForwardRows, padded]
  pack(s, k, kv_head, dim, padded, nullptr, keys);
  pack(s, v, kv_head, dim, padded, values, nullptr);
  for (std::int64_t h = kv_head * shape.group; h < (kv_head + 1) * shape.group; ++h) {
    for (std::int64_t first = 0; first < s.length; first += kForwardRows) {
      const std::int64_t rows = s.length - first < kForwardRows ? s.length - first : kForwardRows;
      const std::int64_t width = seen(s, first + rows);
      const Left queries{q.at(s.start + first, h), q.token_stride, 1};
      multiply(rows, width, dim, queries, keys, padded, tile, padded, false);
      float inverse[kForwardRows];
      for (std::int64_t r = 0; r < rows; ++r) {
        float* row = tile + r * padded;
        const std::int64_t visible = s.prefix_length + first + r + 1;
        const float shift = shape.scale * row_maximum(row, visible);
        const float total = exponentials(row, visible, width, shape.scale, shift);
        inverse[r] = 1.0F / total;
        lse[h * shape.tokens + s.start + first + r] = shift + __builtin_logf(total);
      }
      float* out = o + (s.start + first) * o_row + h * dim;
      multiply(rows, dim, width, Left{tile, padded, 1}, values, dim, out, o_row, false);
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t d = 0; d < dim; d += kLanes)
          store(out + r * o_row + d, load(out + r * o_row + d) * inverse[r]);
    }
  }
}

FASTREASON_INLINE float dot(const float* a, const float* b, std::int64_t n) {
  Vec total{};
  for (std::int64_t i = 0; i < n; i += kLanes) total += load(a + i) * load(b + i);
  return sum(total);
}

void attention_backward(const AttentionSegment& s, const AttentionShape& shape, const Heads& q, const Heads& k,
                        const Heads& v, std::int64_t kv_head, const AttentionGradients& g, float* scratch) {
  const std::int64_t dim = shape.dim, padded = seen(s, s.length), o_row = shape.heads * dim;
  const std::int64_t panel = dim * padded;
  float* key_rows = scratch;
  float* keys = key_rows + panel;
  float* values = keys + panel;
  float* dk = values + panel;
  float* dv = dk + panel;
  float* p = dv + panel;                   // [kBackwardRows, padded] weights
  float* ds = p + kBackwardRows * padded;  // their gradients
  pack(s, k, kv_head, dim, padded, key_rows, keys);
  pack(s, v, kv_head, dim, padded, nullptr, values);
  for (std::int64_t i = 0; i < 2 * panel; i += kLanes) store(dk + i, Vec{});
  for (std::int64_t h = kv_head * shape.group; h < (kv_head + 1) * shape.group; ++h) {
    for (std::int64_t first = 0; first < s.length; first += kBackwardRows) {
      const std::int64_t rows = s.length - first < kBackwardRows ? s.length - first : kBackwardRows;
      const Left queries{q.at(s.start + first, h), q.token_stride, 1};
      const float* out = g.o + (s.start + first) * o_row + h * dim;
      const float* d_out = g.d_o + (s.start + first) * o_row + h * dim;
      float* d_query = g.dq + (s.start + first) * o_row + h * dim;
      const std::int64_t whole = seen(s, first + rows);
      for (std::int64_t part = 0; part < rows; part += kForwardRows) {
        const std::int64_t height = rows - part < kForwardRows ? rows - part : kForwardRows;
        const std::int64_t width = seen(s, first + part + height);
        float* p_part = p + part * padded;
        float* ds_part = ds + part * padded;
        multiply(height, width, dim, queries.below(part), keys, padded, p_part, padded, false);
        multiply(height, width, dim, Left{d_out + part * o_row, o_row, 1}, values, padded, ds_part, padded, false);
        for (std::int64_t r = 0; r < height; ++r) {
          const std::int64_t token = s.start + first + part + r;
          const std::int64_t visible = s.prefix_length + first + part + r + 1;
          float* weight = p_part + r * padded;
          float* d_weight = ds_part + r * padded;
          exponentials(weight, visible, whole, shape.scale, g.lse[h * shape.tokens + token]);
          const float mean = dot(d_out + (part + r) * o_row, out + (part + r) * o_row, dim);
          for (std::int64_t j = 0; j < width; j += kLanes)
            store(d_weight + j, load(weight + j) * (load(d_weight + j) - mean) * shape.scale);
          for (std::int64_t j = width; j < whole; j += kLanes) store(d_weight + j, Vec{});
        }
        multiply(height, dim, width, Left{ds_part, padded, 1}, key_rows, dim, d_query + part * o_row, o_row, false);
      }
      // keys in blocks; none of the queries before a block's first key sees it
      for (std::int64_t j = 0; j < whole; j += kForwardRows) {
        const std::int64_t height = whole - j < kForwardRows ? whole - j : kForwardRows;
        std::int64_t skip = j - s.prefix_length - first;
        skip = skip < 0 ? 0 : skip < rows ? skip : rows;
        multiply(height, dim, rows - skip, Left{ds + j + skip * padded, 1, padded}, queries.data + skip * queries.row,
                 queries.row, dk + j * dim, dim, true);
        multiply(height, dim, rows - skip, Left{p + j + skip * padded, 1, padded}, d_out + skip * o_row, o_row,
                 dv + j * dim, dim, true);
      }
    }
  }
  const std::int64_t kv_row = shape.heads / shape.group * dim;
  for (std::int64_t j = 0; j < s.prefix_length + s.length; ++j) {
    const std::int64_t at = key_token(s, j) * kv_row + kv_head * dim;
    const bool adds = j < s.prefix_length;  // the prefix has gradients of its own and of its other viewers
    for (std::int64_t d = 0; d < dim; d += kLanes) {
      const Vec before_k = adds ? load(g.dk + at + d) : Vec{}, before_v = adds ? load(g.dv + at + d) : Vec{};
      store(g.dk + at + d, before_k + load(dk + j * dim + d));
      store(g.dv + at + d, before_v + load(dv + j * dim + d));
    }
  }
}

}  // namespace
}  // namespace fastreason
