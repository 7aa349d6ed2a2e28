// Small matrix products whose operands lie in the caches: rows of a times a panel of b.
#pragma once

#include "cpu/simd.h"

namespace fastreason {
namespace {

// An operand a(m, k) = data[m * row + k * column].
struct Left {
  const float* data;
  std::int64_t row, column;
  FASTREASON_INLINE Left below(std::int64_t m) const { return {data + m * row, row, column}; }
  FASTREASON_INLINE Left after(std::int64_t k) const { return {data + k * column, row, column}; }
};

// c[m][n] (+)= sum_k a(m, k) b[k][n] for M rows and V vectors of columns, which stay in registers.
template <int M, int V>
FASTREASON_INLINE void multiply_tile(Left a, const float* b, std::int64_t b_row, std::int64_t depth, float* c,
                                     std::int64_t c_row, bool accumulate) {
  Vec acc[M][V];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[m][v] = accumulate ? load(c + m * c_row + v * kLanes) : Vec{};
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec row[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) row[v] = load(b + k * b_row + v * kLanes);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const Vec factor = splat(a.data[m * a.row + k * a.column]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[m][v] += factor * row[v];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + m * c_row + v * kLanes, acc[m][v]);
}

template <int V>
void multiply_columns(std::int64_t rows, Left a, const float* b, std::int64_t b_row, std::int64_t depth, float* c,
                      std::int64_t c_row, bool accumulate) {
  // accumulators, one row of b and a factor fill the registers: 32 of AVX-512, else 16
  constexpr int kRows = kLanes == 16 ? (V == 1 ? 12 : V == 2 ? 12 : 6) : (V == 1 ? 8 : V == 2 ? 6 : 3);
  std::int64_t m = 0;
  for (; m + kRows <= rows; m += kRows)
    multiply_tile<kRows, V>(a.below(m), b, b_row, depth, c + m * c_row, c_row, accumulate);
  for (; m + 4 <= rows; m += 4) multiply_tile<4, V>(a.below(m), b, b_row, depth, c + m * c_row, c_row, accumulate);
  for (; m + 2 <= rows; m += 2) multiply_tile<2, V>(a.below(m), b, b_row, depth, c + m * c_row, c_row, accumulate);
  for (; m < rows; ++m) multiply_tile<1, V>(a.below(m), b, b_row, depth, c + m * c_row, c_row, accumulate);
}

// c[rows x columns] (+)= a b; columns a multiple of kLanes.
FASTREASON_INLINE void multiply(std::int64_t rows, std::int64_t columns, std::int64_t depth, Left a, const float* b,
                                std::int64_t b_row, float* c, std::int64_t c_row, bool accumulate) {
  std::int64_t n = 0;
  for (; n + 4 * kLanes <= columns; n += 4 * kLanes)
    multiply_columns<4>(rows, a, b + n, b_row, depth, c + n, c_row, accumulate);
  if (n + 2 * kLanes <= columns) {
    multiply_columns<2>(rows, a, b + n, b_row, depth, c + n, c_row, accumulate);
    n += 2 * kLanes;
  }
  if (n < columns) multiply_columns<1>(rows, a, b + n, b_row, depth, c + n, c_row, accumulate);
}

}  // namespace
}  // namespace fastreason
