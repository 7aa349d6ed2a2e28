// Compiled once for every instruction set: FASTREASON_ISA is baseline, avx2 or avx512.
#include "cpu/kernels.h"

#include "cpu/attention.h"
#include "cpu/loss.h"
#include "cpu/pointwise.h"
#include "cpu/policy_loss.h"

#define FASTREASON_JOIN_(a, b) a##b
#define FASTREASON_JOIN(a, b) FASTREASON_JOIN_(a, b)
#define FASTREASON_TEXT_(a) #a
#define FASTREASON_TEXT(a) FASTREASON_TEXT_(a)

namespace fastreason {

const Kernels& FASTREASON_JOIN(kernels_of_, FASTREASON_ISA)() {
  static constexpr Kernels kTable = {FASTREASON_TEXT(FASTREASON_ISA),
                                     kLanes,
                                     attention_forward,
                                     attention_backward,
                                     rms_norm_forward,
                                     rms_norm_backward,
                                     swiglu_forward<float>,
                                     swiglu_backward<float>,
                                     rope_rotate<float, float>,
                                     cross_entropy_rows,
                                     widen,
                                     narrow,
                                     policy_loss_rows,
                                     add_rms_norm_forward16,
                                     add_rms_norm_backward16,
                                     swiglu_forward<std::uint16_t>,
                                     swiglu_backward<std::uint16_t>,
                                     rope_rotate<std::uint16_t, std::uint16_t>,
                                     rope_rotate<float, std::uint16_t>,
                                     nullptr};
  return kTable;
}

}  // namespace fastreason
