// Matrix products with one order of summation for every element. Included by forward_kernels.h alone, once for each
// instruction set, which defines kVec (floats of a vector register), kTileRows and kTilePanels (of a register tile).
#pragma once

namespace fastreason::FASTREASON_KERNEL {

namespace {

typedef float Vec __attribute__((vector_size(4 * kVec), aligned(4), may_alias));
typedef std::int32_t IntVec __attribute__((vector_size(4 * kVec), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec x) { *reinterpret_cast<Vec*>(p) = x; }
inline Vec splat(float x) { return Vec{} + x; }

// B of a product: panels of 16 columns, panel_stride floats apart; within a panel row k is at k * row_stride.
struct Panels {
  const float* data;
  std::int64_t panel_stride, row_stride;

  Panels from(std::int64_t panel) const { return {data + panel * panel_stride, panel_stride, row_stride}; }
};

// Panels as they are packed, of a matrix with `inner` rows.
inline Panels packed(const float* data, std::int64_t inner) { return {data, inner * kLanes, kLanes}; }

struct Matrix {
  float* data;
  std::int64_t stride;

  float* row(std::int64_t m) const { return data + m * stride; }
};

enum class Store { kSet, kAdd };

// C[m][n] (+)= bias[n] + sum_k A[m][k] B[k][n] for kRows rows and kPanels panels, k ascending in one chain.
template <int kRows, int kPanels, Store kStore>
inline void product_tile(Matrix a, Panels b, std::int64_t inner, const float* bias, Matrix c) {
  constexpr int kVecs = static_cast<int>(kLanes) / kVec, kColumns = kPanels * kVecs;
  Vec sum[kRows][kColumns];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j) sum[m][j] = Vec{};
  for (std::int64_t k = 0; k < inner; ++k) {
    Vec column[kColumns];
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; ++j)
      column[j] = load(b.data + j / kVecs * b.panel_stride + k * b.row_stride + j % kVecs * kVec);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
      const Vec factor = splat(a.data[m * a.stride + k]);
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; ++j) sum[m][j] += factor * column[j];
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
template <int kRows, int kPanels, Store kStore>
inline void product_rest(std::int64_t rows, Matrix a, Panels b, std::int64_t inner, const float* bias, Matrix c) {
  if constexpr (kRows > 0) {
    if (rows == kRows)
      product_tile<kRows, kPanels, kStore>(a, b, inner, bias, c);
    else
      product_rest<kRows - 1, kPanels, kStore>(rows, a, b, inner, bias, c);
  }
}

template <int kPanels, Store kStore>
inline void product_rows(Matrix a, std::int64_t rows, Panels b, std::int64_t inner, const float* bias, Matrix c) {
  std::int64_t m = 0;
  for (; m + kTileM <= rows; m += kTileM)
    product_tile<kTileM, kPanels, kStore>({a.row(m), a.stride}, b, inner, bias, {c.row(m), c.stride});
  product_rest<kTileM - 1, kPanels, kStore>(rows - m, {a.row(m), a.stride}, b, inner, bias, {c.row(m), c.stride});
}

// C [rows][16 panels] (+)= A [rows][inner] B + bias [16 panels], which may be null.
template <Store kStore>
inline void product(Matrix a, std::int64_t rows, Panels b, std::int64_t panels, std::int64_t inner, const float* bias,
                    Matrix c) {
  const auto at = [&](std::int64_t j) { return bias == nullptr ? nullptr : bias + j * kLanes; };
  std::int64_t j = 0;
  for (; j + kTilePanels <= panels; j += kTilePanels)
    product_rows<kTilePanels, kStore>(a, rows, b.from(j), inner, at(j), {c.data + j * kLanes, c.stride});
  for (; j < panels; ++j) product_rows<1, kStore>(a, rows, b.from(j), inner, at(j), {c.data + j * kLanes, c.stride});
}

}  // namespace

}  // namespace fastreason::FASTREASON_KERNEL
