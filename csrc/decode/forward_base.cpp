// Any processor: SSE2, NEON or what else has vectors of 16 bytes.
#define FASTREASON_KERNEL base
#define FASTREASON_VEC 4
#define FASTREASON_TILE_ROWS 3
#define FASTREASON_TILE_PANELS 1
#include "decode/forward_kernels.h"

namespace fastreason {

ForwardTiles forward_base() { return {base::forward_tile<float>, base::forward_tile<Bfloat16>}; }

}  // namespace fastreason
