// Processors with AVX2 and FMA.
#define FASTREASON_KERNEL avx2
#define FASTREASON_VEC 8
#define FASTREASON_TILE_ROWS 6
#define FASTREASON_TILE_PANELS 1
#include "decode/forward_kernels.h"

namespace fastreason {

void forward_tile_avx2(const ModelView& model, const Row* rows, std::int64_t num_rows, float* workspace, float* logits,
                       bool last_only) {
  avx2::forward_tile(model, rows, num_rows, workspace, logits, last_only);
}

}  // namespace fastreason
