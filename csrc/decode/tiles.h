// Products with the tile registers of AMX: 16 rows of 64 bytes each, two of them multiplied by one instruction.
// Included by matrix.h alone, where the file is compiled for them.
//
// An element's sum is one chain over k in steps of 32. An instruction sums even and odd k of a step apart, then adds
// both to what came before, whatever the other rows of the tile hold; denormals count as zero.
#pragma once

#include <immintrin.h>

namespace fastreason::FASTREASON_KERNEL {

namespace {

// Rows of a tile, and k of the left one of a product: as many as a panel has columns, as many as weights are padded to.
inline constexpr std::int64_t kTile = 16, kTileInner = 32;
static_assert(kTile == kLanes && kTileInner == kInputs<Bfloat16>);

// Eight whole tiles for as long as it lives; afterwards the thread has no tile state that a switch would have to save.
class WholeTiles {
 public:
  WholeTiles() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof(config) == 64);
    _tile_loadconfig(&config);
  }
  ~WholeTiles() { _tile_release(); }
  WholeTiles(const WholeTiles&) = delete;
  WholeTiles& operator=(const WholeTiles&) = delete;
};

// gcc's loads of a tile do not say that they read memory: what was stored before must be there.
inline void settle_memory() { __asm__ volatile("" ::: "memory"); }

// C (+)= A B + bias for kRowTiles x 16 rows and kPanels panels, each 1 or 2; inner is a multiple of kTileInner.
template <int kRowTiles, int kPanels, Store kStore>
inline void tile_product(Left<Bfloat16> a, Panels<Bfloat16> b, std::int64_t inner, const float* bias, Matrix<float> c) {
  const auto bytes = [](std::int64_t stride, std::size_t size) { return stride * static_cast<std::int64_t>(size); };
  const std::int64_t a_stride = bytes(a.stride, sizeof(Bfloat16)), b_stride = bytes(b.group_stride, sizeof(Bfloat16));
  const std::int64_t c_stride = bytes(c.stride, sizeof(float));
  const Bfloat16 *const a1 = a.row(kTile), *const b1 = b.data + b.panel_stride;
  float* const c1 = c.row(kTile);
  settle_memory();
  // tiles 0 to 3: sums, 4 and 5: rows, 6 and 7: panels
  if (kStore == Store::kAdd) {
    _tile_loadd(0, c.data, c_stride);
    if constexpr (kPanels > 1) _tile_loadd(1, c.data + kLanes, c_stride);
    if constexpr (kRowTiles > 1) _tile_loadd(2, c1, c_stride);
    if constexpr (kRowTiles > 1 && kPanels > 1) _tile_loadd(3, c1 + kLanes, c_stride);
  } else if (bias != nullptr) {  // the same row 16 times
    _tile_loadd(0, bias, 0);
    if constexpr (kPanels > 1) _tile_loadd(1, bias + kLanes, 0);
    if constexpr (kRowTiles > 1) _tile_loadd(2, bias, 0);
    if constexpr (kRowTiles > 1 && kPanels > 1) _tile_loadd(3, bias + kLanes, 0);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (std::int64_t k = 0; k < inner; k += kTileInner) {
    const std::int64_t at = k / kGroup<Bfloat16> * b.group_stride;
    _tile_loadd(6, b.data + at, b_stride);
    _tile_loadd(4, a.data + k, a_stride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRowTiles > 1) {
      _tile_loadd(5, a1 + k, a_stride);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kPanels > 1) {
      _tile_loadd(7, b1 + at, b_stride);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (kRowTiles > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c.data, c_stride);
  if constexpr (kPanels > 1) _tile_stored(1, c.data + kLanes, c_stride);
  if constexpr (kRowTiles > 1) _tile_stored(2, c1, c_stride);
  if constexpr (kRowTiles > 1 && kPanels > 1) _tile_stored(3, c1 + kLanes, c_stride);
  settle_memory();
}

// The last rows, fewer than a tile holds: A can be read beyond them, C not.
template <int kPanels, Store kStore>
inline void tile_product_rest(Left<Bfloat16> a, std::int64_t rows, Panels<Bfloat16> b, std::int64_t inner,
                              const float* bias, Matrix<float> c) {
  alignas(64) float whole[kTile * kPanels * kLanes] = {};
  const Matrix<float> copy = {whole, kPanels * kLanes};
  const std::size_t width = kPanels * kLanes * sizeof(float);
  if (kStore == Store::kAdd)
    for (std::int64_t m = 0; m < rows; ++m) __builtin_memcpy(copy.row(m), c.row(m), width);
  tile_product<1, kPanels, kStore>(a, b, inner, bias, copy);
  for (std::int64_t m = 0; m < rows; ++m) __builtin_memcpy(c.row(m), copy.row(m), width);
}

template <int kPanels, Store kStore>
inline void tile_product_rows(Left<Bfloat16> a, std::int64_t rows, Panels<Bfloat16> b, std::int64_t inner,
                              const float* bias, Matrix<float> c) {
  std::int64_t m = 0;
  for (; m + 2 * kTile <= rows; m += 2 * kTile)
    tile_product<2, kPanels, kStore>({a.row(m), a.stride}, b, inner, bias, {c.row(m), c.stride});
  if (m + kTile <= rows) {
    tile_product<1, kPanels, kStore>({a.row(m), a.stride}, b, inner, bias, {c.row(m), c.stride});
    m += kTile;
  }
  if (m < rows)
    tile_product_rest<kPanels, kStore>({a.row(m), a.stride}, rows - m, b, inner, bias, {c.row(m), c.stride});
}

}  // namespace

}  // namespace fastreason::FASTREASON_KERNEL
