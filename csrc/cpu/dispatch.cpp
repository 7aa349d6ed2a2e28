#include <cstring>

#include "common/amx.h"
#include "cpu/kernels.h"

namespace fastreason {

std::int64_t attention_scratch(std::int64_t keys, std::int64_t dim) {
  constexpr std::int64_t kWidest = 16, kPanels = 5, kRowsOfWeights = 2 * 48;
  return (keys + kWidest) * (kPanels * dim + kRowsOfWeights);
}

const Kernels* find_kernels(const char* name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#if defined(FASTREASON_AMX_KERNEL)
  const bool may_have_amx = has_avx512 && __builtin_cpu_supports("avx512bf16");
  if (may_have_amx && (!name || !std::strcmp(name, "amx")) && may_use_amx()) return &kernels_of_amx();
#endif
  if (has_avx512 && (!name || !std::strcmp(name, "avx512"))) return &kernels_of_avx512();
  if (has_avx2 && (!name || !std::strcmp(name, "avx2"))) return &kernels_of_avx2();
#endif
  return !name || !std::strcmp(name, "baseline") ? &kernels_of_baseline() : nullptr;
}

const Kernels& kernels() {
  static const Kernels* found = find_kernels(nullptr);
  return *found;
}

}  // namespace fastreason
