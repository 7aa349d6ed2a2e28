// What lets a header compile for the host and, under nvcc, for the device as well; such headers stay within C++17.
#pragma once

#include <cstring>

#ifdef __CUDACC__
#define FASTREASON_HD __host__ __device__
#define FASTREASON_INLINE __host__ __device__ __forceinline__
#define FASTREASON_LAMBDA
#else
#define FASTREASON_HD
// into callers that are compiled for more than the baseline, which plain inlining may leave out
#define FASTREASON_INLINE __attribute__((always_inline)) inline
#define FASTREASON_LAMBDA __attribute__((always_inline))
#endif

namespace fastreason {

// std::bit_cast before C++20.
template <class To, class From>
FASTREASON_INLINE To bit_copy(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace fastreason
