// Causal attention as in attention.h, of bfloat16, by tile registers: scores, weights and sums are float32, and
// operands of products bfloat16, weights and their gradients among them.
#pragma once

#include "cpu/attention_rows.h"
#include "cpu/tiles.h"

namespace fastreason {
namespace {

constexpr std::int64_t kQueries = 128;  // whose gradients of keys and values are summed in registers
constexpr std::int64_t kSteps = kQueries / kTerms;

// Floats of the largest of the two; keys are those of a segment and its prefix.
std::int64_t attention_scratch_tiles(std::int64_t keys, std::int64_t dim) {
  constexpr std::int64_t kParts = 15;
  const std::int64_t padded = round_up(keys, kTerms);
  const std::int64_t halves = padded * (4 * dim + kTerms + 2 * kQueries) + 4 * kQueries * dim;
  return halves / 2 + 2 * (padded + kTile) * (kTerms + dim) + kTerms * dim + (kParts + 1) * Parts::kLine;
}

FASTREASON_INLINE void copy_row(const std::uint16_t* from, std::int64_t dim, std::uint16_t* to) {
  for (std::int64_t d = 0; d < dim; d += kTerms) {
    const __m512i row = from ? _mm512_loadu_si512(from + d) : _mm512_setzero_si512();
    _mm512_storeu_si512(to + d, row);
  }
}

// The keys (or values) of a segment: [padded][dim], zeros behind the last.
FASTREASON_INLINE void gather_keys(const AttentionSegment& s, const Heads16& x, std::int64_t head, std::int64_t dim,
                                   std::int64_t padded, std::uint16_t* rows) {
  for (std::int64_t j = 0; j < padded; ++j)
    copy_row(j < s.prefix_length + s.length ? x.at(key_token(s, j), head) : nullptr, dim, rows + j * dim);
}

FASTREASON_INLINE void gather_queries(const Heads16& x, std::int64_t token, std::int64_t head, std::int64_t count,
                                      std::int64_t padded, std::int64_t dim, std::uint16_t* rows) {
  for (std::int64_t i = 0; i < padded; ++i) copy_row(i < count ? x.at(token + i, head) : nullptr, dim, rows + i * dim);
}

// Rows as a right operand: they are its columns, and its terms are along a row.
FASTREASON_INLINE void pack_rows(const std::uint16_t* rows, std::int64_t count, std::int64_t dim, std::uint16_t* to) {
  for (std::int64_t j = 0; j < count; j += kTile)
    for (std::int64_t d = 0; d < dim; d += kTerms, to += kTileSize) {
      __m512i tile[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) tile[i] = _mm512_loadu_si512(rows + (j + i) * dim + d);
      transpose(tile);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * kTerms, tile[i]);
    }
}

// scores[32][width] of 32 queries and the keys that `pack_rows` packed.
FASTREASON_INLINE void multiply_rows(const std::uint16_t* queries, const std::uint16_t* keys, std::int64_t width,
                                     std::int64_t dim, float* scores, std::int64_t scores_row) {
  const LeftTiles above{queries, 2 * dim, kTerms}, below{queries + kTile * dim, 2 * dim, kTerms};
  float* second = scores + kTile * scores_row;
  for (std::int64_t j = 0; j < width; j += kTerms)
    multiply_tiles(dim / kTerms, above, below, keys + j * dim, keys + (j + kTile) * dim, scores + j, scores + j + kTile,
                   second + j, second + j + kTile, scores_row, false);
}

// out[32][dim] of 32 rows of weights, in tiles, and rows of keys that `pack_columns` packed in `depth` steps.
FASTREASON_INLINE void multiply_weights(const std::uint16_t* weights, std::int64_t width, const std::uint16_t* values,
                                        std::int64_t depth, std::int64_t dim, float* out) {
  const std::uint16_t* below = weights + width * kTile;
  for (std::int64_t d = 0; d < dim; d += kTerms) {
    const std::uint16_t* right = values + d * depth * kTerms;
    float* second = out + kTile * dim + d;
    multiply_tiles(width / kTerms, {weights}, {below}, right, right + depth * kTileSize, out + d, out + d + kTile,
                   second, second + kTile, dim, false);
  }
}

// 32 numbers in bfloat16, the first ones in the lower half.
FASTREASON_INLINE __m512i narrowed(Vec low, Vec high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low)));
}

FASTREASON_INLINE Vec weights_of(const float* scores, std::int64_t visible, float scale, float shift) {
  const Vec e = exponential(load(scores) * scale - shift);
  return visible >= kLanes ? e : first_lanes(visible, e, Vec{});
}

// The place of row r (of 32) in a left operand of tiles with so many columns.
FASTREASON_INLINE std::uint16_t* tile_row(std::uint16_t* tiles, std::int64_t r, std::int64_t width) {
  return tiles + r / kTile * width * kTile + r % kTile * kTerms;
}

void attention_forward_tiles(const AttentionSegment& s, const AttentionShape& shape, const Heads16& q, const Heads16& k,
                             const Heads16& v, std::int64_t kv_head, std::uint16_t* o, float* lse, float* scratch) {
  const std::int64_t dim = shape.dim, padded = round_up(s.prefix_length + s.length, kTerms);
  const std::int64_t o_row = shape.heads * dim, scores_row = padded + kTile, depth = padded / kTerms;
  Parts parts(scratch);
  std::uint16_t *rows = parts.halves(padded * dim), *keys = parts.halves(padded * dim);
  std::uint16_t *values = parts.halves(padded * dim), *queries = parts.halves(kTerms * dim);
  std::uint16_t* weights = parts.halves(kTerms * padded);
  float *scores = parts.floats(kTerms * scores_row), *out = parts.floats(kTerms * dim);
  gather_keys(s, k, kv_head, dim, padded, rows);
  pack_rows(rows, padded, dim, keys);
  gather_keys(s, v, kv_head, dim, padded, rows);
  pack_columns(rows, dim, padded, dim, false, depth, values);
  const TileRegisters registers;
  for (std::int64_t h = kv_head * shape.group; h < (kv_head + 1) * shape.group; ++h)
    for (std::int64_t first = 0; first < s.length; first += kTerms) {
      const std::int64_t count = s.length - first < kTerms ? s.length - first : kTerms;
      const std::int64_t width = round_up(s.prefix_length + first + count, kTerms);
      gather_queries(q, s.start + first, h, count, kTerms, dim, queries);
      multiply_rows(queries, keys, width, dim, scores, scores_row);
      float inverse[kTerms];
      for (std::int64_t r = 0; r < count; ++r) {
        const float* row = scores + r * scores_row;
        const std::int64_t visible = s.prefix_length + first + r + 1;
        const float shift = shape.scale * row_maximum(row, visible);
        std::uint16_t* to = tile_row(weights, r, width);
        Vec total{};
        for (std::int64_t j = 0; j < width; j += kTerms) {
          const Vec low = weights_of(row + j, visible - j, shape.scale, shift);
          const Vec high = weights_of(row + j + kLanes, visible - j - kLanes, shape.scale, shift);
          total += low + high;
          _mm512_storeu_si512(to + j * kTile, narrowed(low, high));
        }
        const float sum_of = sum(total);
        inverse[r] = 1.0F / sum_of;
        lse[h * shape.tokens + s.start + first + r] = shift + __builtin_logf(sum_of);
      }
      // weights of rows behind the last query are those of another block; nothing reads what comes of them
      multiply_weights(weights, width, values, depth, dim, out);
      for (std::int64_t r = 0; r < count; ++r)
        for (std::int64_t d = 0; d < dim; d += kLanes)
          store(o + (s.start + first + r) * o_row + h * dim + d, load(out + r * dim + d) * inverse[r]);
    }
}

FASTREASON_INLINE float dot(const std::uint16_t* a, const std::uint16_t* b, std::int64_t n) {
  Vec total{};
  for (std::int64_t i = 0; i < n; i += kLanes) total += load(a + i) * load(b + i);
  return sum(total);
}

// What the weights of a query and their gradients are made of.
struct QueryRow {
  const float *scores, *d_weights;
  std::int64_t visible;  // keys; 0: no query
  float lse, mean;
};

// Weights and gradients of the scores of two queries, as pairs of terms of right operands whose tiles are `step` apart;
// the gradients also as rows of a left operand. Zeros behind the last key that a query sees.
FASTREASON_INLINE void gradient_rows(const QueryRow& even, const QueryRow& odd, std::int64_t width, float scale,
                                     std::uint16_t* weights, std::uint16_t* d_scores, std::int64_t step,
                                     std::uint16_t* even_row, std::uint16_t* odd_row) {
  const auto half = [scale](const QueryRow& row, std::int64_t j, Vec& weight, Vec& d_score)
                        __attribute__((always_inline)) {
                          weight = weights_of(row.scores + j, row.visible - j, scale, row.lse);
                          d_score = weight * (load(row.d_weights + j) - row.mean) * scale;
                        };
  const auto keep = [step](__m512i a, __m512i b, std::uint16_t* to) __attribute__((always_inline)) {
    __m512i low, high;
    interleave(a, b, low, high);
    _mm512_storeu_si512(to, low);
    _mm512_storeu_si512(to + step, high);
  };
  for (std::int64_t j = 0; j < width; j += kTerms) {
    Vec w[4], d[4];
    half(even, j, w[0], d[0]);
    half(even, j + kLanes, w[1], d[1]);
    half(odd, j, w[2], d[2]);
    half(odd, j + kLanes, w[3], d[3]);
    keep(narrowed(w[0], w[1]), narrowed(w[2], w[3]), weights + j / kTile * step);
    const __m512i first = narrowed(d[0], d[1]), second = narrowed(d[2], d[3]);
    keep(first, second, d_scores + j / kTile * step);
    _mm512_storeu_si512(even_row + j * kTile, first);
    _mm512_storeu_si512(odd_row + j * kTile, second);
  }
}

// x turned back by the angles of its token.
FASTREASON_INLINE void store_turned(const float* x, const float* cos, const float* sin, std::int64_t dim,
                                    std::uint16_t* to) {
  const std::int64_t half = dim / 2;
  for (std::int64_t d = 0; d < half; d += kLanes) {
    const Vec a = load(x + d), b = load(x + half + d), turn = load(sin + half + d), stay = load(cos + d);
    store(to + d, a * stay + b * turn);
    store(to + half + d, b * stay - a * turn);
  }
}

// sums [dim][keys], rows `stride` apart -> gradient [tokens][heads][dim], to which those of a prefix are added.
FASTREASON_INLINE void store_key_gradients(const AttentionSegment& s, const float* sums, std::int64_t stride,
                                           std::int64_t dim, std::int64_t row, float* gradient) {
  const std::int64_t keys = s.prefix_length + s.length;
  for (std::int64_t j = 0; j < keys; j += kTile)
    for (std::int64_t d = 0; d < dim; d += kTile) {
      __m512i tile[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) tile[i] = _mm512_loadu_si512(sums + (d + i) * stride + j);
      transpose(tile);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (j + i >= keys) continue;
        float* to = gradient + key_token(s, j + i) * row + d;
        const Vec before = j + i < s.prefix_length ? load(to) : Vec{};
        store(to, before + reinterpret_cast<Vec>(tile[i]));
      }
    }
}

void attention_backward_tiles(const AttentionSegment& s, const AttentionShape& shape, const Heads16& q,
                              const Heads16& k, const Heads16& v, std::int64_t kv_head, const AttentionGradients16& g,
                              float* scratch) {
  const std::int64_t dim = shape.dim, padded = round_up(s.prefix_length + s.length, kTerms);
  const std::int64_t o_row = shape.heads * dim, sums_row = padded + kTile, depth = padded / kTerms;
  const Heads16 d_o{g.d_o, o_row, dim};
  Parts parts(scratch);
  std::uint16_t *rows = parts.halves(padded * dim), *keys = parts.halves(padded * dim);
  std::uint16_t *values = parts.halves(padded * dim), *key_columns = parts.halves(padded * dim);
  std::uint16_t *queries = parts.halves(kQueries * dim), *d_out = parts.halves(kQueries * dim);
  std::uint16_t *query_columns = parts.halves(kQueries * dim), *d_out_columns = parts.halves(kQueries * dim);
  std::uint16_t *weights = parts.halves(kQueries * padded), *d_scores = parts.halves(kQueries * padded);
  std::uint16_t* d_score_rows = parts.halves(kTerms * padded);
  float *scores = parts.floats(kTerms * sums_row), *d_weights = parts.floats(kTerms * sums_row);
  float *dk = parts.floats(2 * dim * sums_row), *dv = dk + dim * sums_row, *out = parts.floats(kTerms * dim);
  gather_keys(s, v, kv_head, dim, padded, rows);
  pack_rows(rows, padded, dim, values);
  gather_keys(s, k, kv_head, dim, padded, rows);
  pack_rows(rows, padded, dim, keys);
  pack_columns(rows, dim, padded, dim, false, depth, key_columns);
  for (std::int64_t i = 0; i < 2 * dim * sums_row; i += kLanes) store(dk + i, Vec{});
  const TileRegisters registers;
  for (std::int64_t h = kv_head * shape.group; h < (kv_head + 1) * shape.group; ++h)
    for (std::int64_t first = 0; first < s.length; first += kQueries) {
      const std::int64_t count = s.length - first < kQueries ? s.length - first : kQueries;
      const std::int64_t steps = (count + kTerms - 1) / kTerms;
      gather_queries(q, s.start + first, h, count, steps * kTerms, dim, queries);
      gather_queries(d_o, s.start + first, h, count, steps * kTerms, dim, d_out);
      pack_columns(queries, dim, steps * kTerms, dim, true, kSteps, query_columns);
      pack_columns(d_out, dim, steps * kTerms, dim, true, kSteps, d_out_columns);
      for (std::int64_t t = 0; t < steps; ++t) {
        const std::int64_t part = t * kTerms, here = count - part < kTerms ? count - part : kTerms;
        const std::int64_t token = s.start + first + part, seen_before = s.prefix_length + first + part;
        const std::int64_t width = round_up(seen_before + here, kTerms);
        multiply_rows(queries + part * dim, keys, width, dim, scores, sums_row);
        multiply_rows(d_out + part * dim, values, width, dim, d_weights, sums_row);
        const auto row = [&](std::int64_t r) __attribute__((always_inline)) {
          QueryRow found{scores + r * sums_row, d_weights + r * sums_row, 0, 0.0F, 0.0F};
          if (r >= here) return found;
          found.visible = seen_before + r + 1;
          found.lse = g.lse[h * shape.tokens + token + r];
          found.mean = dot(d_out + (part + r) * dim, g.o + (token + r) * o_row + h * dim, dim);
          return found;
        };
        for (std::int64_t r = 0; r < kTerms; r += 2) {
          const std::int64_t at = t * kTileSize + r / 2 * kTerms;
          gradient_rows(row(r), row(r + 1), width, shape.scale, weights + at, d_scores + at, kSteps * kTileSize,
                        tile_row(d_score_rows, r, width), tile_row(d_score_rows, r + 1, width));
        }
        multiply_weights(d_score_rows, width, key_columns, depth, dim, out);
        for (std::int64_t r = 0; r < here; ++r)
          store_turned(out + r * dim, g.cos + (token + r) * dim, g.sin + (token + r) * dim, dim,
                       g.dq + (token + r) * g.dq_token_stride + h * dim);
      }
      const std::int64_t whole = round_up(s.prefix_length + first + count, kTerms);
      for (std::int64_t j = 0; j < whole; j += kTerms) {
        // none of the steps before sees key j
        std::int64_t skip = (j - s.prefix_length - first) / kTerms;
        skip = skip < 0 ? 0 : skip;
        const std::int64_t right = (j / kTile * kSteps + skip) * kTileSize, next = right + kSteps * kTileSize;
        for (std::int64_t d = 0; d < dim; d += kTerms) {
          const std::int64_t left = (d / kTile * kSteps + skip) * kTileSize, below = left + kSteps * kTileSize;
          const auto add = [&](const std::uint16_t* a, const std::uint16_t* b, float* c)
                               __attribute__((always_inline)) {
                                 float *c0 = c + d * sums_row + j, *c1 = c0 + kTile * sums_row;
                                 multiply_tiles(steps - skip, {a + left}, {a + below}, b + right, b + next, c0,
                                                c0 + kTile, c1, c1 + kTile, sums_row, true);
                               };
          add(query_columns, d_scores, dk);
          add(d_out_columns, weights, dv);
        }
      }
    }
  const std::int64_t kv_row = shape.heads / shape.group * dim;
  store_key_gradients(s, dk, sums_row, dim, kv_row, g.dk + kv_head * dim);
  store_key_gradients(s, dv, sums_row, dim, kv_row, g.dv + kv_head * dim);
}

}  // namespace
}  // namespace fastreason
