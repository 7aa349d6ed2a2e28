// Those of avx512, and products of bfloat16 by tile registers.
#include "cpu/attention_tiles.h"
#include "cpu/weight_gradient.h"

namespace fastreason {

const Kernels& kernels_of_amx() {
  static constexpr TileKernels kTiles = {
      attention_scratch_tiles, weight_gradient_scratch, attention_forward_tiles, attention_backward_tiles, pack_narrow,
      weight_gradient};
  static const Kernels table = [] {
    Kernels kernels = kernels_of_avx512();
    kernels.name = "amx";
    kernels.tiles = &kTiles;
    return kernels;
  }();
  return table;
}

}  // namespace fastreason
