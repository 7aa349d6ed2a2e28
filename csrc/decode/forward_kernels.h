// The forward pass of forward.h, written once for vectors of any width. A file that defines FASTREASON_KERNEL (a
// namespace and the name's ending), FASTREASON_VEC, FASTREASON_TILE_ROWS and FASTREASON_TILE_PANELS includes it.
#pragma once

#include "decode/forward.h"

namespace fastreason::FASTREASON_KERNEL {
namespace {
constexpr int kVec = FASTREASON_VEC, kTileM = FASTREASON_TILE_ROWS, kTilePanels = FASTREASON_TILE_PANELS;
}  // namespace
}  // namespace fastreason::FASTREASON_KERNEL

#include "decode/matrix.h"
#include "decode/vector_math.h"

namespace fastreason::FASTREASON_KERNEL {

namespace {

inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// y = x / sqrt(mean x^2 + eps) * weight, as the left side of a product.
template <class Number>
inline void rms_norm(const float* x, const float* weight, std::int64_t width, float eps,
                     typename Factors<Number>::Left* y) {
  using F = Factors<Number>;
  Vec squares = {};
  std::int64_t i = 0;
  for (; i + kVec <= width; i += kVec) squares += load(x + i) * load(x + i);
  float total = sum_of(squares);
  for (; i < width; ++i) total += x[i] * x[i];
  const float scale = 1.0f / __builtin_sqrtf(total / static_cast<float>(width) + eps);
  for (i = 0; i + kVec <= width; i += kVec) F::store_left(y + i, load(x + i) * splat(scale) * load(weight + i));
  for (; i < width; ++i) y[i] = F::left(x[i] * scale * weight[i]);
  for (; i < padded_inputs<Number>(width); ++i) y[i] = 0;
}

// x * factor, as the left side of a product.
template <class Number>
inline void scaled(const float* x, float factor, std::int64_t width, typename Factors<Number>::Left* y) {
  std::int64_t i = 0;
  for (; i + kVec <= width; i += kVec) Factors<Number>::store_left(y + i, load(x + i) * splat(factor));
  for (; i < width; ++i) y[i] = Factors<Number>::left(x[i] * factor);
}

// y += x
inline void add(const float* x, std::int64_t width, float* y) {
  for (std::int64_t i = 0; i < width; i += kVec) store(y + i, load(y + i) + load(x + i));
}

// The halves of x rotated by the angles of its position.
inline void rotate(float* __restrict x, const float* __restrict cos, const float* __restrict sin, std::int64_t half) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = b * cos[i] + a * sin[i];
  }
}

// Where one layer and key-value head of a cache lies.
template <class Number>
struct HeadCache {
  Number *keys, *values;
};
template <class Number>
inline HeadCache<Number> head_of(const DecoderShape& shape, KvView kv, std::int64_t layer, std::int64_t head) {
  Number* const data = static_cast<Number*>(kv.data);
  Number* const keys = data + (layer * shape.kv_heads + head) * shape.head_numbers(kv.capacity);
  return {keys, keys + kv.capacity * shape.head_dim};
}

template <class Number>
inline Panels<Number> values_of(const DecoderShape& shape, HeadCache<Number> cache) {
  return {cache.values, kGroup<Number> * kLanes, kGroup<Number> * shape.padded_head_dim()};
}

template <class Number>
inline void append(const DecoderShape& shape, HeadCache<Number> cache, std::int64_t token, const float* key,
                   const float* value) {
  constexpr std::int64_t kStep = kGroup<Number>;
  const std::int64_t in_group = token % kStep, width = shape.padded_head_dim();
  Number* const block = cache.keys + token / kLanes * shape.head_dim * kLanes + token % kLanes * kStep;
  Number* const group = cache.values + (token - in_group) * width;
  // tokens that are still to come have weight 0, but what their memory holds may be infinite
  if (kInnerStep<Number> > 1 && token % kInnerStep<Number> == 0)
    __builtin_memset(group, 0, static_cast<std::size_t>(kInnerStep<Number> * width) * sizeof(Number));
  std::int64_t d = 0;
#ifdef __AVX512BF16__
  if constexpr (kStep == 2)
    for (; d + kVec <= shape.head_dim; d += kVec) {
      Bfloat16 pairs[kVec];
      Factors<Number>::store_left(pairs, load(key + d));
      for (std::int64_t i = 0; i < kVec; i += 2) __builtin_memcpy(block + (d + i) * kLanes, pairs + i, sizeof(float));
      put_half(group + d * kStep, static_cast<int>(in_group), load(value + d));
    }
#endif
  for (; d < shape.head_dim; ++d) {
    block[d / kStep * kStep * kLanes + d % kStep] = to<Number>(key[d]);
    group[d * kStep + in_group] = to<Number>(value[d]);
  }
}

// Reads the keys and values of the first tokens, or a share of them, from memory into the cache.
template <class Number>
inline void fetch(const DecoderShape& shape, HeadCache<Number> cache, std::int64_t tokens, std::int64_t share = 0,
                  std::int64_t shares = 1) {
  constexpr std::int64_t kLine = 64 / sizeof(Number);
  const std::int64_t keys = round_up(tokens) * shape.head_dim, values = tokens * shape.padded_head_dim();
  for (std::int64_t i = share * kLine; i < keys; i += shares * kLine) __builtin_prefetch(cache.keys + i, 0, 2);
  for (std::int64_t i = share * kLine; i < values; i += shares * kLine) __builtin_prefetch(cache.values + i, 0, 2);
}

// Scores to weights, in place, as the left side of a product: the first `prefix` of `prefix_room` columns and the first
// `own` of the `own_room` behind them count, the others become 0. Returns 1 / sum; the weights stay unnormalised.
template <class Number>
inline float weigh(float* scores, std::int64_t prefix, std::int64_t prefix_room, std::int64_t own,
                   std::int64_t own_room) {
  // a vector and how many of its columns count
  const auto each = [&](auto&& visit) {
    for (std::int64_t l = 0; l < prefix_room; l += kVec) visit(l, prefix - l);
    for (std::int64_t l = 0; l < own_room; l += kVec) visit(prefix_room + l, own - l);
  };
  Vec highest = splat(-__builtin_inff());
  each([&](std::int64_t l, std::int64_t count) {
    const Vec x = first_of(load(scores + l), count);
    highest = x > highest ? x : highest;
  });
  const Vec maximum = splat(largest_of(highest));
  Vec total = {};
  each([&](std::int64_t l, std::int64_t count) {
    const Vec weight = count > 0 ? exponential(first_of(load(scores + l), count) - maximum) : Vec{};
    total += weight;
    // as wide as a score or narrower: what has not been read yet stays
    Factors<Number>::store_left(reinterpret_cast<typename Factors<Number>::Left*>(scores) + l, weight);
  });
  return 1.0f / sum_of(total);
}

// Scratch memory of a tile. Rows are 64 bytes longer than their content: strides of 4 KiB would share cache lines.
template <class Number>
struct Scratch {
  Matrix<float> x, qkv, pair, outputs, own_outputs, scores;
  Left<Number> normed, attended, wide, queries;
  float* sums;
};

template <class Number>
inline Scratch<Number> divide(float* workspace, const DecoderShape& s, std::int64_t context) {
  const auto take = [&]<class Element>(Matrix<Element>& matrix, std::int64_t rows, std::int64_t width) {
    constexpr std::int64_t kLine = 64 / sizeof(Element);
    matrix = {reinterpret_cast<Element*>(workspace), (width + kLine - 1) / kLine * kLine + kLine};
    workspace += rows * matrix.stride * static_cast<std::int64_t>(sizeof(Element)) / 4;
  };
  Scratch<Number> scratch;
  Matrix<float> sums;
  const std::int64_t stacked = kAttentionRows * (s.heads / s.kv_heads);
  take(scratch.x, kTileRows, s.hidden);
  take(scratch.normed, kTileRows, s.hidden);
  take(scratch.qkv, kTileRows, s.qkv_width());
  take(scratch.attended, kTileRows, s.heads * s.head_dim);
  take(scratch.wide, kTileRows, s.intermediate);
  take(scratch.pair, kTileRows, 4 * kLanes);
  take(scratch.queries, stacked + kLanes, s.head_dim);
  take(scratch.outputs, stacked + kLanes, s.padded_head_dim());
  take(scratch.own_outputs, stacked + kLanes, s.padded_head_dim());
  take(sums, stacked, 1);
  scratch.sums = sums.data;
  // prefix and own tokens, each rounded up
  take(scratch.scores, stacked + kLanes, context + 2 * kCacheTokens);
  return scratch;
}

// Zeros behind the inputs of a product with weights.
template <class Number>
inline void pad(Left<Number> a, std::int64_t rows, std::int64_t inputs) {
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t i = inputs; i < padded_inputs<Number>(inputs); ++i) a.row(r)[i] = 0;
}

// Attention of rows that share a prefix, at most kAttentionRows, in one layer and key-value head.
template <class Number>
inline void attend(const DecoderShape& s, const Row* rows, std::int64_t num_rows, std::int64_t layer,
                   std::int64_t kv_head, const Scratch<Number>& scratch, std::int64_t first) {
  using F = Factors<Number>;
  using LeftElement = typename F::Left;
  const std::int64_t group = s.heads / s.kv_heads, D = s.head_dim, value_panels = s.padded_head_dim() / kLanes;
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(D));
  const Left<Number> queries = scratch.queries;
  const Matrix<float> outputs = scratch.outputs;
  std::int64_t prefix = 0, own_room = 0;
  for (std::int64_t r = 0; r < num_rows; ++r) {
    const bool in_prompt = rows[r].own.data == nullptr;
    prefix = larger(prefix, rows[r].prefix_length + in_prompt);
    own_room = larger(own_room, in_prompt ? 0 : in_rooms<Number>(rows[r].own_length + 1));
    const float* const q = scratch.qkv.row(first + r) + kv_head * group * D;
    for (std::int64_t h = 0; h < group; ++h) scaled<Number>(q + h * D, scale, D, queries.row(r * group + h));
  }
  const std::int64_t prefix_room = in_rooms<Number>(prefix), stacked = whole_tiles(num_rows * group);
  const Matrix<float> scores = {scratch.scores.data, prefix_room + own_room + kLanes};
  const HeadCache<Number> before = head_of<Number>(s, rows[0].prefix, layer, kv_head);
  multiply<Store::kSet, Right::kNear>(queries, stacked, blocks(before.keys, D), round_up(prefix) / kLanes, D, nullptr,
                                      scores);
  // a whole tile writes over what the next rows have yet to get
  for (std::int64_t r = 0; r < num_rows; ++r) {
    if (rows[r].own.data == nullptr) continue;
    const HeadCache<Number> cache = head_of<Number>(s, rows[r].own, layer, kv_head);
    multiply<Store::kSet, Right::kNear>(Left<Number>{queries.row(r * group), queries.stride}, whole_tiles(group),
                                        blocks(cache.keys, D), round_up(rows[r].own_length + 1) / kLanes, D, nullptr,
                                        {scores.row(r * group) + prefix_room, scores.stride});
  }
  for (std::int64_t r = 0; r < num_rows; ++r) {
    const bool in_prompt = rows[r].own.data == nullptr;
    const std::int64_t own = in_prompt ? 0 : rows[r].own_length + 1;
    for (std::int64_t h = r * group; h < (r + 1) * group; ++h)
      scratch.sums[h] =
          weigh<Number>(scores.row(h), rows[r].prefix_length + in_prompt, prefix_room, own, in_rooms<Number>(own));
  }
  const Left<Number> weights = {reinterpret_cast<LeftElement*>(scores.data),
                                scores.stride * static_cast<std::int64_t>(sizeof(float) / sizeof(LeftElement))};
  multiply<Store::kSet, Right::kNear>(weights, stacked, values_of(s, before), value_panels, in_steps<Number>(prefix),
                                      nullptr, outputs);
  for (std::int64_t r = 0; r < num_rows; ++r) {
    if (rows[r].own.data == nullptr) continue;
    const HeadCache<Number> cache = head_of<Number>(s, rows[r].own, layer, kv_head);
    const Matrix<float> to = kTiled ? scratch.own_outputs : outputs;
    multiply<kTiled ? Store::kSet : Store::kAdd, Right::kNear>(
        Left<Number>{weights.row(r * group) + prefix_room, weights.stride}, whole_tiles(group), values_of(s, cache),
        value_panels, in_steps<Number>(rows[r].own_length + 1), nullptr, {to.row(r * group), to.stride});
  }
  for (std::int64_t r = 0; r < num_rows; ++r)
    for (std::int64_t h = 0; h < group; ++h) {
      float* const output = outputs.row(r * group + h);
      if (kTiled && rows[r].own.data != nullptr)
        add(scratch.own_outputs.row(r * group + h), s.padded_head_dim(), output);
      scaled<Number>(output, scratch.sums[r * group + h], D,
                     scratch.attended.row(first + r) + (kv_head * group + h) * D);
    }
}

// Rotates queries and keys of a row and puts the new keys and values into its cache.
template <class Number>
inline void enter(const ModelView& model, const Row& row, std::int64_t layer, float* qkv) {
  const DecoderShape& s = model.shape;
  const std::int64_t D = s.head_dim, half = D / 2, position = row.prefix_length + row.own_length;
  for (std::int64_t h = 0; h < s.heads + s.kv_heads; ++h)
    rotate(qkv + h * D, model.cos + position * half, model.sin + position * half, half);
  const bool in_prompt = row.own.data == nullptr;
  for (std::int64_t h = 0; h < s.kv_heads; ++h)
    append(s, head_of<Number>(s, in_prompt ? row.prefix : row.own, layer, h),
           in_prompt ? row.prefix_length : row.own_length, qkv + (s.heads + h) * D,
           qkv + (s.heads + s.kv_heads + h) * D);
}

// What a row, the n-th of those that share its prefix, will read.
template <class Number>
inline void fetch_row(const DecoderShape& shape, const Row& row, std::int64_t n, std::int64_t layer) {
  for (std::int64_t h = 0; h < shape.kv_heads; ++h) {
    if (row.own.data != nullptr) fetch(shape, head_of<Number>(shape, row.own, layer, h), row.own_length + 1);
    fetch(shape, head_of<Number>(shape, row.prefix, layer, h), row.prefix_length, n, kAttentionRows);
  }
}

// All rows enter their caches and attend, those of one prefix together.
template <class Number>
inline void attention(const ModelView& model, const Row* rows, std::int64_t num_rows, std::int64_t layer,
                      const Scratch<Number>& scratch) {
  for (std::int64_t begin = 0, end; begin < num_rows; begin = end) {
    for (end = begin;
         end < num_rows && end - begin < kAttentionRows && rows[end].prefix.data == rows[begin].prefix.data; ++end) {
      if (kTiled && end + kAttentionRows < num_rows)
        fetch_row<Number>(model.shape, rows[end + kAttentionRows], end - begin, layer);
      enter<Number>(model, rows[end], layer, scratch.qkv.row(end));
    }
    for (std::int64_t h = 0; h < model.shape.kv_heads; ++h)
      attend<Number>(model.shape, rows + begin, end - begin, layer, h, scratch, begin);
  }
}

// wide = silu(x gate) * (x up)
template <class Number>
inline void gated(const ModelView& model, const LayerView& layer, std::int64_t num_rows,
                  const Scratch<Number>& scratch) {
  const DecoderShape& s = model.shape;
  const auto gate = [&](std::int64_t j, std::int64_t first, std::int64_t count, Matrix<float> pair) {
    for (std::int64_t r = 0; r < count; ++r)
      for (std::int64_t i = 0; i < kLanes; i += kVec)
        Factors<Number>::store_left(scratch.wide.row(first + r) + j * kLanes + i,
                                    silu(load(pair.row(r) + i)) * load(pair.row(r) + kLanes + i));
  };
  multiply_pairs(scratch.normed, num_rows, packed<Number>(layer.gate_up, s.hidden), round_up(s.intermediate) / kLanes,
                 padded_inputs<Number>(s.hidden), scratch.pair, gate);
}

template <class Number>
inline void logits_of(const ModelView& model, const Scratch<Number>& scratch, const Row* rows, std::int64_t num_rows,
                      float* logits) {
  const DecoderShape& s = model.shape;
  std::int64_t wanted = 0;
  for (std::int64_t r = 0; r < num_rows; ++r)
    if (rows[r].has_logits)
      rms_norm<Number>(scratch.x.row(r), model.final_norm, s.hidden, s.eps, scratch.normed.row(wanted++));
  if (wanted == 0) return;
  const std::int64_t whole = s.vocab / kLanes, rest = s.vocab % kLanes, inner = padded_inputs<Number>(s.hidden);
  const Panels<Number> panels = packed<Number>(model.head, s.hidden);
  multiply<Store::kSet, Right::kStreamed>(scratch.normed, wanted, panels, whole, inner, nullptr, {logits, s.vocab});
  if (rest == 0) return;
  multiply<Store::kSet, Right::kStreamed>(scratch.normed, wanted, panels.from(whole), 1, inner, nullptr, scratch.pair);
  for (std::int64_t r = 0; r < wanted; ++r)
    __builtin_memcpy(logits + r * s.vocab + whole * kLanes, scratch.pair.row(r),
                     static_cast<std::size_t>(rest) * sizeof(float));
}

template <class Number>
inline void forward_tile(const ModelView& model, const Row* rows, std::int64_t num_rows, float* workspace,
                         float* logits) {
  const DecoderShape& s = model.shape;
  const Scratch<Number> scratch = divide<Number>(workspace, s, 0);
  const std::int64_t hidden_panels = round_up(s.hidden) / kLanes, hidden = padded_inputs<Number>(s.hidden);
  const WholeTiles tiles;
  pad<Number>(scratch.attended, num_rows, s.heads * s.head_dim);
  pad<Number>(scratch.wide, num_rows, s.intermediate);
  for (std::int64_t r = 0; r < num_rows; ++r) {
    const Number* const embedding = static_cast<const Number*>(model.embedding) + rows[r].token * s.hidden;
    for (std::int64_t i = 0; i < s.hidden; ++i) scratch.x.row(r)[i] = to_float(embedding[i]);
  }
  for (std::int64_t l = 0; l < s.layers; ++l) {
    const LayerView& layer = model.layers[l];
    for (std::int64_t r = 0; r < num_rows; ++r)
      rms_norm<Number>(scratch.x.row(r), layer.attention_norm, s.hidden, s.eps, scratch.normed.row(r));
    multiply<Store::kSet, Right::kStreamed>(scratch.normed, num_rows, packed<Number>(layer.qkv, s.hidden),
                                            round_up(s.qkv_width()) / kLanes, hidden, layer.qkv_bias, scratch.qkv);
    attention<Number>(model, rows, num_rows, l, scratch);
    multiply<Store::kAdd, Right::kStreamed>(scratch.attended, num_rows, packed<Number>(layer.out, s.heads * s.head_dim),
                                            hidden_panels, padded_inputs<Number>(s.heads * s.head_dim), nullptr,
                                            scratch.x);
    for (std::int64_t r = 0; r < num_rows; ++r)
      rms_norm<Number>(scratch.x.row(r), layer.mlp_norm, s.hidden, s.eps, scratch.normed.row(r));
    gated<Number>(model, layer, num_rows, scratch);
    multiply<Store::kAdd, Right::kStreamed>(scratch.wide, num_rows, packed<Number>(layer.down, s.intermediate),
                                            hidden_panels, padded_inputs<Number>(s.intermediate), nullptr, scratch.x);
  }
  logits_of(model, scratch, rows, num_rows, logits);
}

}  // namespace

}  // namespace fastreason::FASTREASON_KERNEL
