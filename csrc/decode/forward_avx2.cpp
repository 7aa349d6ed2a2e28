// Processors with AVX2 and FMA.
#define FASTREASON_KERNEL avx2
#define FASTREASON_VEC 8
#define FASTREASON_TILE_ROWS 6
#define FASTREASON_TILE_PANELS 1
#include "decode/forward_kernels.h"

namespace fastreason {

ForwardTiles forward_avx2() { return {avx2::forward_tile<float>, avx2::forward_tile<Bfloat16>}; }

}  // namespace fastreason
