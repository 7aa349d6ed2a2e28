// Processors with AVX-512F.
#define FASTREASON_KERNEL avx512
#define FASTREASON_VEC 16
#define FASTREASON_TILE_ROWS 12
#define FASTREASON_TILE_PANELS 2
#include "decode/forward_kernels.h"

namespace fastreason {

void forward_tile_avx512(const ModelView& model, const Row* rows, std::int64_t num_rows, float* workspace,
                         float* logits, bool last_only) {
  avx512::forward_tile(model, rows, num_rows, workspace, logits, last_only);
}

}  // namespace fastreason
