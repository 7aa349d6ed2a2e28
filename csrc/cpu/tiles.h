// Products of bfloat16 by the tile registers of AMX: sums of 16 x 16 in float32, 32 terms of each an instruction.
//
// A tile of the left operand is [16 rows][32 terms]; of the right one [16 pairs of terms][16 columns][2]. Operands are
// packed into such tiles of 1 KB, so that a register is filled from one run of memory.
#pragma once

#include <immintrin.h>

#include "cpu/simd.h"

namespace fastreason {
namespace {

constexpr std::int64_t kTile = 16, kTerms = 32, kTileSize = kTile * kTerms, kSums = kTile * kTile;

FASTREASON_INLINE std::int64_t tiles_of(std::int64_t columns) { return (columns + kTerms - 1) / kTerms * 2; }

// While this lives, all eight registers are 16 rows of 64 bytes.
struct TileRegisters {
  TileRegisters() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  ~TileRegisters() { _tile_release(); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// A row of tiles of a left operand: bytes between the rows of a tile, numbers between tiles of successive terms.
struct LeftTiles {
  const std::uint16_t* data;
  std::int64_t row_bytes = 2 * kTerms, step = kTileSize;
};

// c[i][j] (+)= a[i] b[j] for two tiles of rows and two of columns; those of b for successive terms are adjacent, and
// rows of c are `c_row` apart.
FASTREASON_INLINE void multiply_tiles(std::int64_t depth, LeftTiles a0, LeftTiles a1, const std::uint16_t* b0,
                                      const std::uint16_t* b1, float* c00, float* c01, float* c10, float* c11,
                                      std::int64_t c_row, bool accumulate) {
  const std::int64_t bytes = c_row * static_cast<std::int64_t>(sizeof(float));
  // gcc does not know that loads of a tile read memory: what was stored before must be there
  __asm__ volatile("" ::: "memory");
  if (accumulate) {
    _tile_loadd(0, c00, bytes);
    _tile_loadd(1, c01, bytes);
    _tile_loadd(2, c10, bytes);
    _tile_loadd(3, c11, bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (std::int64_t s = 0; s < depth; ++s) {
    _tile_loadd(4, a0.data + s * a0.step, a0.row_bytes);
    _tile_loadd(6, b0 + s * kTileSize, 2 * kTerms);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b1 + s * kTileSize, 2 * kTerms);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a1.data + s * a1.step, a1.row_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c00, bytes);
  _tile_stored(1, c01, bytes);
  _tile_stored(2, c10, bytes);
  _tile_stored(3, c11, bytes);
}

// Of 16 x 16 numbers of 32 bits.
FASTREASON_INLINE void transpose(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Two rows of 32 numbers -> their pairs.
FASTREASON_INLINE void interleave(__m512i even, __m512i odd, __m512i& low, __m512i& high) {
  const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  low = _mm512_permutex2var_epi16(even, first, odd);
  high = _mm512_permutex2var_epi16(even, _mm512_add_epi16(first, _mm512_set1_epi16(16)), odd);
}

// 32 rows and 32 columns, zeros outside of the given ones, as two tiles whose terms are the rows: of a right operand,
// or transposed, of a left one whose rows are the columns here.
FASTREASON_INLINE void pack_tiles(const std::uint16_t* x, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                  bool transposed, std::uint16_t* to0, std::uint16_t* to1) {
  const __mmask32 inside = columns >= kTerms ? ~0U : (1U << columns) - 1U;
  __m512i low[16], high[16];
#pragma GCC unroll 16
  for (int p = 0; p < 16; ++p) {
    const std::uint16_t* at = x + 2 * p * stride;
    const __m512i even = 2 * p < rows ? _mm512_maskz_loadu_epi16(inside, at) : _mm512_setzero_si512();
    const __m512i odd = 2 * p + 1 < rows ? _mm512_maskz_loadu_epi16(inside, at + stride) : _mm512_setzero_si512();
    interleave(even, odd, low[p], high[p]);
  }
  if (transposed) {
    transpose(low);
    transpose(high);
  }
#pragma GCC unroll 16
  for (int p = 0; p < 16; ++p) {
    _mm512_storeu_si512(to0 + p * kTerms, low[p]);
    _mm512_storeu_si512(to1 + p * kTerms, high[p]);
  }
}

// x [rows][columns] -> tiles: those of terms s (rows 32 s ...) and columns 16 c ... at to + (c * depth + s) *
// kTileSize.
void pack_columns(const std::uint16_t* x, std::int64_t stride, std::int64_t rows, std::int64_t columns, bool transposed,
                  std::int64_t depth, std::uint16_t* to) {
  for (std::int64_t n = 0; n < rows; n += kTerms)
    for (std::int64_t c = 0; c < columns; c += kTerms) {
      std::uint16_t* tile = to + (c / kTile * depth + n / kTerms) * kTileSize;
      pack_tiles(x + n * stride + c, stride, rows - n, columns - c, transposed, tile, tile + depth * kTileSize);
    }
}

// Hands out the parts of a scratch, each at the begin of a cache line: a row of a tile shall not lie in two.
class Parts {
 public:
  static constexpr std::int64_t kLine = 16;  // floats
  FASTREASON_INLINE explicit Parts(float* scratch) {
    at_ = scratch + (-reinterpret_cast<std::uintptr_t>(scratch) % 64) / sizeof(float);
  }
  FASTREASON_INLINE float* floats(std::int64_t count) {
    float* part = at_;
    at_ += (count + kLine - 1) / kLine * kLine;
    return part;
  }
  FASTREASON_INLINE std::uint16_t* halves(std::int64_t count) {
    return reinterpret_cast<std::uint16_t*>(floats((count + 1) / 2));
  }

 private:
  float* at_;
};

}  // namespace
}  // namespace fastreason
