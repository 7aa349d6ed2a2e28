// Processors with AVX-512F.
#define FASTREASON_KERNEL avx512
#define FASTREASON_VEC 16
#define FASTREASON_TILE_ROWS 6
#define FASTREASON_TILE_PANELS 4
#include "decode/forward_kernels.h"

namespace fastreason {

ForwardTiles forward_avx512() { return {avx512::forward_tile<float>, avx512::forward_tile<Bfloat16>}; }

}  // namespace fastreason
