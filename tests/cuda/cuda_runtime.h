// As much of CUDA as csrc/cuda uses, on one CPU thread: every thread of a block is a fiber that runs to its next
// barrier. In which order they run is the test's choice, so that a missing barrier shows as a difference.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define CUDART_VERSION 0

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline dim3 threadIdx, blockIdx, blockDim;

namespace emulation {

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  unsigned thread = 0;
  bool done = false;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline Fiber* running = nullptr;
inline std::function<void()> kernel;
inline std::vector<std::uint64_t> exchange;  // one word a thread
inline int order = 0;                        // 0 forwards, 1 backwards, else shuffled with this seed
inline int shared_limit = 48 * 1024;

inline void yield() {
  Fiber* self = running;
  swapcontext(&self->context, &scheduler);
  threadIdx.x = self->thread;
}

inline void enter() {
  kernel();
  running->done = true;
}

// Runs every fiber to its next barrier until all are done; a barrier is reached by all or by none.
inline void run_block(unsigned threads) {
  constexpr std::size_t kStack = 128 * 1024;
  fibers.clear();
  fibers.resize(threads);
  exchange.assign(threads, 0);
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.thread = t;
    fiber.stack = std::make_unique<char[]>(kStack);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, &enter, 0);
  }
  std::vector<unsigned> turn(threads);
  std::iota(turn.begin(), turn.end(), 0u);
  if (order == 1) std::reverse(turn.begin(), turn.end());
  std::mt19937 shuffler(static_cast<unsigned>(order));
  for (bool any = true; any;) {
    any = false;
    if (order > 1) std::shuffle(turn.begin(), turn.end(), shuffler);
    for (const unsigned t : turn) {
      if (fibers[t].done) continue;
      any = true;
      running = &fibers[t];
      threadIdx.x = t;
      swapcontext(&scheduler, &fibers[t].context);
    }
  }
}

// Every thread of a barrier has to arrive before one goes on.
struct Barrier {
  unsigned arrived = 0, generation = 0;
};
inline Barrier block_barrier;
inline std::vector<Barrier> warp_barriers;

inline void wait(Barrier& barrier, unsigned count) {
  const unsigned mine = barrier.generation;
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    ++barrier.generation;
  }
  while (barrier.generation == mine) yield();
}

template <class T>
T from_lane(T value, unsigned lane) {
  static_assert(sizeof(T) <= 8);
  const unsigned self = threadIdx.x, warp = self / 32;
  std::memcpy(&exchange[self], &value, sizeof(T));
  wait(warp_barriers[warp], 32);
  T got;
  std::memcpy(&got, &exchange[warp * 32 + lane], sizeof(T));
  wait(warp_barriers[warp], 32);
  return got;
}

}  // namespace emulation

inline void __syncthreads() { emulation::wait(emulation::block_barrier, blockDim.x); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::from_lane(value, (threadIdx.x % 32) ^ static_cast<unsigned>(mask));
}
template <class T>
T __shfl_up_sync(unsigned, T value, int step) {
  const unsigned lane = threadIdx.x % 32, by = static_cast<unsigned>(step);
  return emulation::from_lane(value, lane >= by ? lane - by : lane);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulation::from_lane(value, static_cast<unsigned>(lane));
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  unsigned all = 0;
  for (int lane = 0; lane < 32; ++lane) all |= static_cast<unsigned>(__shfl_sync(0, int{vote}, lane)) << lane;
  return all;
}
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int min(int a, int b) { return a < b ? a : b; }

inline void atomicAdd(unsigned long long* to, unsigned long long x) { *to += x; }
inline void atomicMax(std::uint32_t* to, std::uint32_t x) { *to = std::max(*to, x); }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 0, cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 0, cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = emulation::shared_limit, cudaSuccess;
}
template <class F>
cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int) {
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  blockDim = config->blockDim;
  emulation::kernel = [&] { kernel(arguments...); };
  for (unsigned block = 0; block < config->gridDim.x; ++block) {
    blockIdx.x = block;
    emulation::block_barrier = {};
    emulation::warp_barriers.assign(blockDim.x / 32, {});
    emulation::run_block(blockDim.x);
  }
  return cudaSuccess;
}
