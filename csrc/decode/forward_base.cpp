// Any processor: SSE2, NEON or what else has vectors of 16 bytes.
#define FASTREASON_KERNEL base
#define FASTREASON_VEC 4
#define FASTREASON_TILE_ROWS 3
#define FASTREASON_TILE_PANELS 1
#include "decode/forward_kernels.h"

namespace fastreason {

void forward_tile_base(const ModelView& model, const Row* rows, std::int64_t num_rows, float* workspace, float* logits,
                       bool last_only) {
  base::forward_tile(model, rows, num_rows, workspace, logits, last_only);
}

}  // namespace fastreason
