// Processors with AVX512-BF16 and tile registers (AMX), which take the products with weights.
#define FASTREASON_KERNEL amx_bf16
#define FASTREASON_VEC 16
#define FASTREASON_TILE_ROWS 6
#define FASTREASON_TILE_PANELS 4
#include "decode/forward_kernels.h"

namespace fastreason {

ForwardTiles forward_amx_bf16() { return {nullptr, amx_bf16::forward_tile<Bfloat16>}; }

}  // namespace fastreason
