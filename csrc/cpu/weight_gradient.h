// The gradient of a linear layer's weight from bfloat16, in float32.
#pragma once

#include "cpu/tiles.h"

namespace fastreason {
namespace {

constexpr std::int64_t kChunk = 512;  // rows at a time, so that a pair of tiles of all of them stays in the first cache

// The narrower of the two operands, rows first .. last - 1 of it (multiples of 32), as tiles of all its rows.
void pack_narrow(const WeightGradient& g, std::int64_t first, std::int64_t last, std::uint16_t* narrow) {
  const bool outputs_are_narrow = g.outputs < g.inputs;
  const Matrix16& x = outputs_are_narrow ? g.dy : g.x;
  pack_columns(x.row(first), x.stride, last - first, outputs_are_narrow ? g.outputs : g.inputs, outputs_are_narrow,
               (g.rows + kTerms - 1) / kTerms, narrow + first / kTerms * kTileSize);
}

std::int64_t weight_gradient_scratch(const WeightGradient& g, std::int64_t columns) {
  const std::int64_t narrow = g.outputs < g.inputs ? g.outputs : g.inputs;
  return tiles_of(columns) * (tiles_of(narrow) * kSums + kChunk * kTile / 2) + 3 * Parts::kLine;
}

// dw[m][k] = sum_n dy[n][m] x[n][k] for the columns first .. last - 1 of the wider operand.
void weight_gradient(const WeightGradient& g, const std::uint16_t* narrow, std::int64_t first, std::int64_t last,
                     float* scratch) {
  const bool outputs_are_narrow = g.outputs < g.inputs;
  const Matrix16& x = outputs_are_narrow ? g.x : g.dy;
  const std::int64_t wide_tiles = tiles_of(last - first), whole_depth = (g.rows + kTerms - 1) / kTerms;
  const std::int64_t narrow_tiles = tiles_of(outputs_are_narrow ? g.outputs : g.inputs);
  Parts parts(scratch);
  float* sums = parts.floats(wide_tiles * narrow_tiles * kSums);  // [tiles of outputs][tiles of inputs]
  std::uint16_t* packed = parts.halves(wide_tiles * kChunk * kTile);
  const std::int64_t row_tiles = outputs_are_narrow ? narrow_tiles : wide_tiles;
  const std::int64_t column_tiles = outputs_are_narrow ? wide_tiles : narrow_tiles;
  const TileRegisters registers;
  for (std::int64_t n = 0; n < g.rows; n += kChunk) {
    const std::int64_t rows = g.rows - n < kChunk ? g.rows - n : kChunk, depth = (rows + kTerms - 1) / kTerms;
    pack_columns(x.row(n) + first, x.stride, rows, last - first, !outputs_are_narrow, depth, packed);
    const std::uint16_t* others = narrow + n / kTerms * kTileSize;
    const std::uint16_t* left = outputs_are_narrow ? others : packed;
    const std::uint16_t* right = outputs_are_narrow ? packed : others;
    const std::int64_t left_step = (outputs_are_narrow ? whole_depth : depth) * kTileSize;
    const std::int64_t right_step = (outputs_are_narrow ? depth : whole_depth) * kTileSize;
    for (std::int64_t i = 0; i < row_tiles; i += 2)
      for (std::int64_t j = 0; j < column_tiles; j += 2) {
        const std::uint16_t *a = left + i * left_step, *b = right + j * right_step;
        float* c = sums + (i * column_tiles + j) * kSums;
        float* below = c + column_tiles * kSums;
        multiply_tiles(depth, {a}, {a + left_step}, b, b + right_step, c, c + kSums, below, below + kSums, kTile,
                       n > 0);
      }
  }
  const std::int64_t top = outputs_are_narrow ? 0 : first, bottom = outputs_are_narrow ? g.outputs : last;
  const std::int64_t begin = outputs_are_narrow ? first : 0, end = outputs_are_narrow ? last : g.inputs;
  for (std::int64_t m = top; m < bottom; ++m)
    for (std::int64_t k = begin; k < end; k += kTile) {
      const std::int64_t i = (m - top) / kTile, j = (k - begin) / kTile;
      const float* from = sums + (i * column_tiles + j) * kSums + (m - top) % kTile * kTile;
      const __mmask16 inside = end - k >= kTile ? 0xFFFF : static_cast<__mmask16>((1U << (end - k)) - 1U);
      _mm512_mask_storeu_ps(g.dw + m * g.inputs + k, inside, _mm512_loadu_ps(from));
    }
}

}  // namespace
}  // namespace fastreason
