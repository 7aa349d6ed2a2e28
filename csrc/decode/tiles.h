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
    // gcc takes the instruction for one that reads 8 bytes
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
  }
  ~WholeTiles() { _tile_release(); }
  WholeTiles(const WholeTiles&) = delete;
  WholeTiles& operator=(const WholeTiles&) = delete;
};

// gcc's loads of a tile do not say that they read memory: what was stored before must be there.
inline void settle_memory() { __asm__ volatile("" ::: "memory"); }

// Lines of memory that will be read soon, so many at every step.
struct Ahead {
  const char* next;
  std::int64_t lines;

  void fetch() {
    for (std::int64_t i = 0; i < lines; ++i) __builtin_prefetch(next + i * 64, 0, 2);
    next += lines * 64;
  }
};

// C (+)= A B + bias for kRowTiles x 16 rows and kPanels panels, each 1 or 2; inner is a multiple of kTileInner.
template <int kRowTiles, int kPanels, Store kStore>
inline void tile_product(Left<Bfloat16> a, Panels<Bfloat16> b, std::int64_t inner, const float* bias, Matrix<float> c,
                         Ahead& ahead) {
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
    ahead.fetch();
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
                              const float* bias, Matrix<float> c, Ahead& ahead) {
  alignas(64) float whole[kTile * kPanels * kLanes];
  const Matrix<float> copy = {whole, kPanels * kLanes};
  const std::size_t width = kPanels * kLanes * sizeof(float);
  if (kStore == Store::kAdd)
    for (std::int64_t m = 0; m < rows; ++m) __builtin_memcpy(copy.row(m), c.row(m), width);
  tile_product<1, kPanels, kStore>(a, b, inner, bias, copy, ahead);
  for (std::int64_t m = 0; m < rows; ++m) __builtin_memcpy(c.row(m), copy.row(m), width);
}

// Meanwhile the next panels of streamed ones come nearer: a step takes kPanels x 16 lines of these, and as many follow.
template <int kPanels, Store kStore, Right kRight>
inline void tile_product_rows(Left<Bfloat16> a, std::int64_t rows, Panels<Bfloat16> b, std::int64_t inner,
                              const float* bias, Matrix<float> c) {
  const std::int64_t blocks = (rows + 2 * kTile - 1) / (2 * kTile);
  const std::int64_t lines = kRight == Right::kStreamed ? (kPanels * kTile + blocks - 1) / blocks : 0;
  Ahead ahead = {reinterpret_cast<const char*>(b.from(kPanels).data), lines};
  std::int64_t m = 0;
  for (; m + 2 * kTile <= rows; m += 2 * kTile)
    tile_product<2, kPanels, kStore>({a.row(m), a.stride}, b, inner, bias, {c.row(m), c.stride}, ahead);
  if (m + kTile <= rows) {
    tile_product<1, kPanels, kStore>({a.row(m), a.stride}, b, inner, bias, {c.row(m), c.stride}, ahead);
    m += kTile;
  }
  if (m < rows)
    tile_product_rest<kPanels, kStore>({a.row(m), a.stride}, rows - m, b, inner, bias, {c.row(m), c.stride}, ahead);
}

// C [rows][16 panels] (+)= A [rows][inner] B + bias; up to 15 rows of A are read beyond the last.
template <Store kStore, Right kRight>
inline void tiled_product(Left<Bfloat16> a, std::int64_t rows, Panels<Bfloat16> b, std::int64_t panels,
                          std::int64_t inner, const float* bias, Matrix<float> c) {
  const auto at = [&](std::int64_t j) { return bias == nullptr ? nullptr : bias + j * kLanes; };
  std::int64_t j = 0;
  for (; j + 2 <= panels; j += 2)
    tile_product_rows<2, kStore, kRight>(a, rows, b.from(j), inner, at(j), {c.data + j * kLanes, c.stride});
  if (j < panels)
    tile_product_rows<1, kStore, kRight>(a, rows, b.from(j), inner, at(j), {c.data + j * kLanes, c.stride});
}

// Products of pairs of panels, 32 rows at a time, each visited while the tiles are busy with the next.
template <class Visit>
inline void tiled_pairs(Left<Bfloat16> a, std::int64_t rows, Panels<Bfloat16> b, std::int64_t pairs, std::int64_t inner,
                        Visit&& visit) {
  constexpr std::int64_t kBlock = 2 * kTile, kWidth = 2 * kLanes;
  alignas(64) float space[2][kBlock * kWidth];
  const std::int64_t blocks = (rows + kBlock - 1) / kBlock;
  const auto product_of = [&](std::int64_t n) { return Matrix<float>{space[n % 2], kWidth}; };
  const auto visit_one = [&](std::int64_t n) {
    const std::int64_t first = n % blocks * kBlock, left = rows - first;
    visit(n / blocks, first, left < kBlock ? left : kBlock, product_of(n));
  };
  for (std::int64_t j = 0, n = 0; j < pairs; ++j) {
    const Panels<Bfloat16> pair = b.from(2 * j);
    Ahead ahead = {reinterpret_cast<const char*>(pair.from(2).data), (kBlock + blocks - 1) / blocks};
    for (std::int64_t m = 0; m < rows; m += kBlock, ++n) {
      const Left<Bfloat16> from = {a.row(m), a.stride};
      if (rows - m > kTile)
        tile_product<2, 2, Store::kSet>(from, pair, inner, nullptr, product_of(n), ahead);
      else
        tile_product<1, 2, Store::kSet>(from, pair, inner, nullptr, product_of(n), ahead);
      if (n > 0) visit_one(n - 1);
    }
  }
  visit_one(pairs * blocks - 1);
}

}  // namespace

}  // namespace fastreason::FASTREASON_KERNEL
