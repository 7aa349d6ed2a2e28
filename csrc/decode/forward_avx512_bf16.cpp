// Processors with AVX-512F and the instruction that adds two products of bfloat16 at once.
#define FASTREASON_KERNEL avx512_bf16
#define FASTREASON_VEC 16
#define FASTREASON_TILE_ROWS 6
#define FASTREASON_TILE_PANELS 4
#include "decode/forward_kernels.h"

namespace fastreason {

ForwardTiles forward_avx512_bf16() { return {nullptr, avx512_bf16::forward_tile<Bfloat16>}; }

}  // namespace fastreason
