// Matrix products with one order of summation for every element. Included by forward_kernels.h alone, once for each
// instruction set, which defines kVec (floats of a vector register), kTileRows and kTilePanels (of a register tile).
#pragma once

#include "decode/number.h"

namespace fastreason::FASTREASON_KERNEL {

namespace {

// B of a product: panels of 16 columns, panel_stride numbers apart; within a panel the rows k .. k + kGroup - 1 are at
// k / kGroup * group_stride.
template <class Number>
struct Panels {
  const Number* data;
  std::int64_t panel_stride, group_stride;

  Panels from(std::int64_t panel) const { return {data + panel * panel_stride, panel_stride, group_stride}; }
};

// Blocks of keys, which have `inner` rows.
template <class Number>
inline Panels<Number> blocks(const Number* keys, std::int64_t inner) {
  return {keys, inner * kLanes, kGroup<Number> * kLanes};
}

// Panels of weights as they are packed, of a matrix with `inner` rows.
template <class Number>
inline Panels<Number> packed(const void* weights, std::int64_t inner) {
  return {static_cast<const Number*>(weights), padded_inputs<Number>(inner) * kLanes, kGroup<Number> * kLanes};
}

template <class Element>
struct Matrix {
  Element* data;
  std::int64_t stride;

  Element* row(std::int64_t m) const { return data + m * stride; }
};

// A of a product with a B of some numbers. Where kGroup does not divide the inner dimension, zeros follow.
template <class Number>
using Left = Matrix<typename Factors<Number>::Left>;

enum class Store { kSet, kAdd };

// Where B of a product comes from: keys and values of a sequence, which a cache near the core holds, or weights, which
// take turns there.
enum class Right { kNear, kStreamed };

// C[m][n] (+)= bias[n] + sum_k A[m][k] B[k][n] for kRows rows and kPanels panels, k in one order and one chain.
template <class Number, int kRows, int kPanels, Store kStore>
inline void product_tile(Left<Number> a, Panels<Number> b, std::int64_t inner, const float* bias, Matrix<float> c) {
  using F = Factors<Number>;
  constexpr int kVecs = static_cast<int>(kLanes) / kVec, kColumns = kPanels * kVecs;
  constexpr std::int64_t kStep = kGroup<Number>;
  Vec sum[kRows][kColumns];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) sum[m][j] = Vec{};
  for (std::int64_t k = 0; k < inner; k += kStep) {
    const Number* const group = b.data + k / kStep * b.group_stride;
#pragma GCC unroll 2
    for (int part = 0; part < F::kParts; ++part) {
      typename F::Operand column[kColumns];
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; ++j)
        column[j] = F::column(group + j / kVecs * b.panel_stride + j % kVecs * kVec * kStep, part);
#pragma GCC unroll 16
      for (int m = 0; m < kRows; ++m) {
        const typename F::Operand factor = F::factor(a.data + m * a.stride + k, part);
#pragma GCC unroll 8
        for (int j = 0; j < kColumns; ++j) sum[m][j] = F::multiply_add(factor, column[j], sum[m][j]);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) {
      float* const to = c.row(m) + j * kVec;
      Vec result = sum[m][j];
      if (bias != nullptr) result += load(bias + j * kVec);
      if (kStore == Store::kAdd) result += load(to);
      store(to, result);
    }
}

// The last rows, fewer than a register tile holds.
template <class Number, int kRows, int kPanels, Store kStore>
inline void product_rest(std::int64_t rows, Left<Number> a, Panels<Number> b, std::int64_t inner, const float* bias,
                         Matrix<float> c) {
  if constexpr (kRows > 0) {
    if (rows == kRows)
      product_tile<Number, kRows, kPanels, kStore>(a, b, inner, bias, c);
    else
      product_rest<Number, kRows - 1, kPanels, kStore>(rows, a, b, inner, bias, c);
  }
}

template <class Number, int kPanels, Store kStore>
inline void product_rows(Left<Number> a, std::int64_t rows, Panels<Number> b, std::int64_t inner, const float* bias,
                         Matrix<float> c) {
  std::int64_t m = 0;
  for (; m + kTileM <= rows; m += kTileM)
    product_tile<Number, kTileM, kPanels, kStore>({a.row(m), a.stride}, b, inner, bias, {c.row(m), c.stride});
  product_rest<Number, kTileM - 1, kPanels, kStore>(rows - m, {a.row(m), a.stride}, b, inner, bias,
                                                    {c.row(m), c.stride});
}

// C [rows][16 panels] (+)= A [rows][inner] B + bias [16 panels], which may be null.
template <Store kStore, class Number>
inline void product(Left<Number> a, std::int64_t rows, Panels<Number> b, std::int64_t panels, std::int64_t inner,
                    const float* bias, Matrix<float> c) {
  const auto at = [&](std::int64_t j) { return bias == nullptr ? nullptr : bias + j * kLanes; };
  std::int64_t j = 0;
  for (; j + kTilePanels <= panels; j += kTilePanels)
    product_rows<Number, kTilePanels, kStore>(a, rows, b.from(j), inner, at(j), {c.data + j * kLanes, c.stride});
  if constexpr (kTilePanels > 2)
    for (; j + 2 <= panels; j += 2)
      product_rows<Number, 2, kStore>(a, rows, b.from(j), inner, at(j), {c.data + j * kLanes, c.stride});
  for (; j < panels; ++j)
    product_rows<Number, 1, kStore>(a, rows, b.from(j), inner, at(j), {c.data + j * kLanes, c.stride});
}

}  // namespace

}  // namespace fastreason::FASTREASON_KERNEL

#ifdef __AMX_BF16__
#include "decode/tiles.h"
#endif

namespace fastreason::FASTREASON_KERNEL {

namespace {

// The product, in tiles where the kernel has them and they divide the inner dimension, whatever the number of rows.
#ifdef __AMX_BF16__

template <Store kStore, Right kRight>
inline void multiply(Left<Bfloat16> a, std::int64_t rows, Panels<Bfloat16> b, std::int64_t panels, std::int64_t inner,
                     const float* bias, Matrix<float> c) {
  if (inner % kTileInner != 0)
    product<kStore>(a, rows, b, panels, inner, bias, c);
  else
    tiled_product<kStore, kRight>(a, rows, b, panels, inner, bias, c);
}

// visit(j, first row, rows, C) for the products of A with panels 2 j and 2 j + 1, some rows at a time; C is gone after
// it. The next product is under way meanwhile.
template <class Visit>
inline void multiply_pairs(Left<Bfloat16> a, std::int64_t rows, Panels<Bfloat16> b, std::int64_t pairs,
                           std::int64_t inner, Matrix<float>, Visit&& visit) {
  tiled_pairs(a, rows, b, pairs, inner, visit);
}

inline constexpr bool kTiled = true;
inline std::int64_t whole_tiles(std::int64_t rows) { return round_up(rows); }

// Of tokens that attention sums over, as many as one step takes; those that are not there have weight 0.
template <class Number>
inline constexpr std::int64_t kInnerStep = kTileInner;

#else

struct WholeTiles {
  // not trivial, so that a variable of it is no unused one
  WholeTiles() {}
};

template <Store kStore, Right, class Number>
inline void multiply(Left<Number> a, std::int64_t rows, Panels<Number> b, std::int64_t panels, std::int64_t inner,
                     const float* bias, Matrix<float> c) {
  product<kStore>(a, rows, b, panels, inner, bias, c);
}

template <class Number, class Visit>
inline void multiply_pairs(Left<Number> a, std::int64_t rows, Panels<Number> b, std::int64_t pairs, std::int64_t inner,
                           Matrix<float> space, Visit&& visit) {
  for (std::int64_t j = 0; j < pairs; j += 2) {
    const std::int64_t both = pairs - j < 2 ? 1 : 2;
    product<Store::kSet>(a, rows, b.from(2 * j), 2 * both, inner, nullptr, space);
    for (std::int64_t p = 0; p < both; ++p) visit(j + p, 0, rows, {space.data + 2 * p * kLanes, space.stride});
  }
}

inline constexpr bool kTiled = false;
inline std::int64_t whole_tiles(std::int64_t rows) { return rows; }

template <class Number>
inline constexpr std::int64_t kInnerStep = kGroup<Number>;

#endif

template <class Number>
constexpr std::int64_t in_steps(std::int64_t tokens) {
  return (tokens + kInnerStep<Number> - 1) / kInnerStep<Number> * kInnerStep<Number>;
}

// Columns of scores that tokens take: whole blocks and whole steps.
template <class Number>
constexpr std::int64_t in_rooms(std::int64_t tokens) {
  return in_steps<Number>(round_up(tokens));
}

}  // namespace

}  // namespace fastreason::FASTREASON_KERNEL
