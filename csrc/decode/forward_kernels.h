// The forward pass of forward.h, written once for vectors of any width. A file that defines FASTREASON_KERNEL (a
// namespace and the name's ending), FASTREASON_VEC, FASTREASON_TILE_ROWS and FASTREASON_TILE_PANELS includes it.
#pragma once

#include "decode/forward.h"

namespace fastreason::FASTREASON_KERNEL {
namespace {
constexpr int kVec = FASTREASON_VEC, kTileM = FASTREASON_TILE_ROWS, kTilePanels = FASTREASON_TILE_PANELS;
}
}  // namespace fastreason::FASTREASON_KERNEL

#include "decode/matrix.h"

namespace fastreason::FASTREASON_KERNEL {

namespace {

inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

inline float sum_of(Vec x) {
  float total = 0.0f;
  for (int i = 0; i < kVec; ++i) total += x[i];
  return total;
}

// e^x within 2 ulp; 0 below -87, as far as float goes without denormals. Cody-Waite reduction, degree 6.
inline Vec exponential(Vec x) {
  const Vec lowest = splat(-87.0f), highest = splat(88.0f);
  const auto vanishes = x < lowest;
  x = vanishes ? lowest : x;
  x = x > highest ? highest : x;
  const Vec shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec n = (x * splat(1.44269504088896341f) + shifter) - shifter;
  const Vec r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
  Vec p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * r * r + r + splat(1.0f);
  const IntVec power = (__builtin_convertvector(n, IntVec) + 127) << 23;
  const Vec result = p * reinterpret_cast<const Vec&>(power);
  return vanishes ? Vec{} : result;
}

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
  const std::int64_t in_group = token % kStep;
  Number* const block = cache.keys + token / kLanes * shape.head_dim * kLanes + token % kLanes * kStep;
  for (std::int64_t d = 0; d < shape.head_dim; ++d) block[d / kStep * kStep * kLanes + d % kStep] = to<Number>(key[d]);
  Number* const group = cache.values + (token - in_group) * shape.padded_head_dim();
  for (std::int64_t d = 0; d < shape.head_dim; ++d) {
    // the next token has weight 0 until it comes, but its memory may hold infinity
    if (in_group == 0 && kStep > 1) group[d * kStep + 1] = 0;
    group[d * kStep + in_group] = to<Number>(value[d]);
  }
}

// Scores to weights, in place, as the left side of a product: the first `prefix` of `prefix_room` columns and the `own`
// behind them count, the others become 0. Returns 1 / sum; the weights stay unnormalised.
template <class Number>
inline float weigh(float* scores, std::int64_t prefix, std::int64_t prefix_room, std::int64_t own,
                   std::int64_t own_room) {
  for (std::int64_t l = prefix; l < prefix_room; ++l) scores[l] = -__builtin_inff();
  for (std::int64_t l = prefix_room + own; l < prefix_room + own_room; ++l) scores[l] = -__builtin_inff();
  const std::int64_t room = prefix_room + own_room;
  Vec highest = load(scores);
  for (std::int64_t l = kVec; l < room; l += kVec) {
    const Vec x = load(scores + l);
    highest = x > highest ? x : highest;
  }
  float maximum = highest[0];
  for (int i = 1; i < kVec; ++i) maximum = highest[i] > maximum ? highest[i] : maximum;
  Vec total = {};
  for (std::int64_t l = 0; l < room; l += kVec) {
    const Vec weight = exponential(load(scores + l) - splat(maximum));
    total += weight;
    // as wide as a score or narrower: what has not been read yet stays
    Factors<Number>::store_left(reinterpret_cast<typename Factors<Number>::Left*>(scores) + l, weight);
  }
  return 1.0f / sum_of(total);
}

// Scratch memory of a tile. Rows are 64 bytes longer than their content: strides of 4 KiB would share cache lines.
template <class Number>
struct Scratch {
  Matrix<float> x, qkv, pair, outputs, scores;
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
  take(scratch.queries, stacked, s.head_dim);
  take(scratch.outputs, stacked, s.padded_head_dim());
  take(sums, stacked, 1);
  scratch.sums = sums.data;
  // prefix and own tokens, each rounded up
  take(scratch.scores, stacked, context + 2 * kLanes);
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
    own_room = larger(own_room, in_prompt ? 0 : round_up(rows[r].own_length + 1));
    const float* const q = scratch.qkv.row(first + r) + kv_head * group * D;
    for (std::int64_t h = 0; h < group; ++h)
      for (std::int64_t d = 0; d < D; ++d) queries.row(r * group + h)[d] = F::left(q[h * D + d] * scale);
  }
  const std::int64_t prefix_room = round_up(prefix);
  const Matrix<float> scores = {scratch.scores.data, prefix_room + own_room + kLanes};
  const HeadCache<Number> before = head_of<Number>(s, rows[0].prefix, layer, kv_head);
  product<Store::kSet>(queries, num_rows * group, blocks(before.keys, D), prefix_room / kLanes, D, nullptr, scores);
  for (std::int64_t r = 0; r < num_rows; ++r) {
    const bool in_prompt = rows[r].own.data == nullptr;
    const std::int64_t own = in_prompt ? 0 : rows[r].own_length + 1;
    const Matrix<float> to = {scores.row(r * group), scores.stride};
    if (!in_prompt) {
      const HeadCache<Number> cache = head_of<Number>(s, rows[r].own, layer, kv_head);
      product<Store::kSet>(Left<Number>{queries.row(r * group), queries.stride}, group, blocks(cache.keys, D),
                           round_up(own) / kLanes, D, nullptr, {to.data + prefix_room, to.stride});
    }
    for (std::int64_t h = 0; h < group; ++h)
      scratch.sums[r * group + h] =
          weigh<Number>(to.row(h), rows[r].prefix_length + in_prompt, prefix_room, own, round_up(own));
  }
  const Left<Number> weights = {reinterpret_cast<LeftElement*>(scores.data),
                                scores.stride * static_cast<std::int64_t>(sizeof(float) / sizeof(LeftElement))};
  product<Store::kSet>(weights, num_rows * group, values_of(s, before), value_panels, prefix, nullptr, outputs);
  for (std::int64_t r = 0; r < num_rows; ++r) {
    const Matrix<float> output = {outputs.row(r * group), outputs.stride};
    if (rows[r].own.data != nullptr) {
      const HeadCache<Number> cache = head_of<Number>(s, rows[r].own, layer, kv_head);
      product<Store::kAdd>(Left<Number>{weights.row(r * group) + prefix_room, weights.stride}, group,
                           values_of(s, cache), value_panels, rows[r].own_length + 1, nullptr, output);
    }
    LeftElement* const to = scratch.attended.row(first + r) + kv_head * group * D;
    for (std::int64_t h = 0; h < group; ++h)
      for (std::int64_t d = 0; d < D; ++d) to[h * D + d] = F::left(output.row(h)[d] * scratch.sums[r * group + h]);
  }
}

// Rotates queries and keys, puts the new keys and values into the caches and attends.
template <class Number>
inline void attention(const ModelView& model, const Row* rows, std::int64_t num_rows, std::int64_t layer,
                      const Scratch<Number>& scratch) {
  const DecoderShape& s = model.shape;
  const std::int64_t D = s.head_dim, half = D / 2;
  for (std::int64_t r = 0; r < num_rows; ++r) {
    const std::int64_t position = rows[r].prefix_length + rows[r].own_length;
    float* const qkv = scratch.qkv.row(r);
    for (std::int64_t h = 0; h < s.heads + s.kv_heads; ++h)
      rotate(qkv + h * D, model.cos + position * half, model.sin + position * half, half);
    const bool in_prompt = rows[r].own.data == nullptr;
    for (std::int64_t h = 0; h < s.kv_heads; ++h)
      append(s, head_of<Number>(s, in_prompt ? rows[r].prefix : rows[r].own, layer, h),
             in_prompt ? rows[r].prefix_length : rows[r].own_length, qkv + (s.heads + h) * D,
             qkv + (s.heads + s.kv_heads + h) * D);
  }
  for (std::int64_t begin = 0, end; begin < num_rows; begin = end) {
    for (end = begin + 1;
         end < num_rows && end - begin < kAttentionRows && rows[end].prefix.data == rows[begin].prefix.data;)
      ++end;
    for (std::int64_t h = 0; h < s.kv_heads; ++h)
      attend<Number>(s, rows + begin, end - begin, layer, h, scratch, begin);
  }
}

// wide = silu(x gate) * (x up), two panels of each at a time.
template <class Number>
inline void gated(const ModelView& model, const LayerView& layer, std::int64_t num_rows,
                  const Scratch<Number>& scratch) {
  const DecoderShape& s = model.shape;
  const Panels<Number> panels = packed<Number>(layer.gate_up, s.hidden);
  const std::int64_t count = round_up(s.intermediate) / kLanes;
  for (std::int64_t j = 0; j < count; j += 2) {
    const std::int64_t both = smaller(2, count - j);
    linear<Store::kSet>(scratch.normed, num_rows, panels.from(2 * j), 2 * both, s.hidden, nullptr, scratch.pair);
    for (std::int64_t r = 0; r < num_rows; ++r)
      for (std::int64_t p = 0; p < both; ++p)
        for (std::int64_t i = 0; i < kLanes; i += kVec) {
          const float* const from = scratch.pair.row(r) + 2 * p * kLanes + i;
          const Vec gate = load(from), up = load(from + kLanes);
          Factors<Number>::store_left(scratch.wide.row(r) + (j + p) * kLanes + i,
                                      gate / (splat(1.0f) + exponential(-gate)) * up);
        }
  }
}

template <class Number>
inline void logits_of(const ModelView& model, const Scratch<Number>& scratch, std::int64_t first, std::int64_t num_rows,
                      float* logits) {
  const DecoderShape& s = model.shape;
  for (std::int64_t r = 0; r < num_rows; ++r)
    rms_norm<Number>(scratch.x.row(first + r), model.final_norm, s.hidden, s.eps, scratch.normed.row(r));
  const std::int64_t whole = s.vocab / kLanes, rest = s.vocab % kLanes;
  const Panels<Number> panels = packed<Number>(model.head, s.hidden);
  linear<Store::kSet>(scratch.normed, num_rows, panels, whole, s.hidden, nullptr, {logits, s.vocab});
  if (rest == 0) return;
  linear<Store::kSet>(scratch.normed, num_rows, panels.from(whole), 1, s.hidden, nullptr, scratch.pair);
  for (std::int64_t r = 0; r < num_rows; ++r)
    __builtin_memcpy(logits + r * s.vocab + whole * kLanes, scratch.pair.row(r),
                     static_cast<std::size_t>(rest) * sizeof(float));
}

template <class Number>
inline void forward_tile(const ModelView& model, const Row* rows, std::int64_t num_rows, float* workspace,
                         float* logits, bool last_only) {
  const DecoderShape& s = model.shape;
  const Scratch<Number> scratch = divide<Number>(workspace, s, 0);
  const std::int64_t hidden_panels = round_up(s.hidden) / kLanes;
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
    linear<Store::kSet>(scratch.normed, num_rows, packed<Number>(layer.qkv, s.hidden), round_up(s.qkv_width()) / kLanes,
                        s.hidden, layer.qkv_bias, scratch.qkv);
    attention<Number>(model, rows, num_rows, l, scratch);
    linear<Store::kAdd>(scratch.attended, num_rows, packed<Number>(layer.out, s.heads * s.head_dim), hidden_panels,
                        s.heads * s.head_dim, nullptr, scratch.x);
    for (std::int64_t r = 0; r < num_rows; ++r)
      rms_norm<Number>(scratch.x.row(r), layer.mlp_norm, s.hidden, s.eps, scratch.normed.row(r));
    gated<Number>(model, layer, num_rows, scratch);
    linear<Store::kAdd>(scratch.wide, num_rows, packed<Number>(layer.down, s.intermediate), hidden_panels,
                        s.intermediate, nullptr, scratch.x);
  }
  if (logits == nullptr) return;
  if (last_only)
    logits_of<Number>(model, scratch, num_rows - 1, 1, logits);
  else
    logits_of<Number>(model, scratch, 0, num_rows, logits);
}

}  // namespace

}  // namespace fastreason::FASTREASON_KERNEL
