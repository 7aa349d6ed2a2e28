#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "common/philox.h"
#include "cuda/sampler.h"
#include "sample/row.h"

namespace fastreason {

namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// A block works on a row, a warp on a tile. Integer atomics in shared memory may come in any order.
class BlockGroup {
 public:
  __device__ BlockGroup() : lane_(threadIdx.x % kWarp), warp_(threadIdx.x / kWarp), num_warps_(blockDim.x / kWarp) {}

  template <class F>
  __device__ __forceinline__ void each_tile(int n, F f) {
    for (int tile = warp_; tile < n; tile += num_warps_) f(tile);
    __syncthreads();
  }
  template <class F>
  __device__ __forceinline__ void each(int n, F f) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) f(i);
    __syncthreads();
  }
  template <class F>
  __device__ __forceinline__ void one_worker(F f) {
    if (warp_ == 0) f();
    __syncthreads();
  }
  template <class F>
  __device__ __forceinline__ void lead(F f) {
    if (threadIdx.x == 0) f();
  }
  template <class F>
  __device__ __forceinline__ void lead_of_tile(F f) {
    if (lane_ == 0) f();
  }
  __device__ __forceinline__ void sync() { __syncthreads(); }
  // The second barrier: nobody writes there before all have read.
  template <class T>
  __device__ __forceinline__ T read(const T* from) {
    const T value = *from;
    __syncthreads();
    return value;
  }
  __device__ __forceinline__ void add(std::uint64_t* to, std::uint64_t x) {
    if (x != 0) atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(x));
  }
  __device__ __forceinline__ void raise(std::uint32_t* to, std::uint32_t x) { atomicMax(to, x); }

  template <class G>
  __device__ __forceinline__ float max_over(int begin, int end, G g) {
    float highest = -std::numeric_limits<float>::infinity();
#pragma unroll 16
    for (int v = begin + lane_; v < end; v += kWarp) highest = fmaxf(highest, g(v));
    for (int step = kWarp / 2; step > 0; step /= 2) highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, step));
    return highest;
  }

  template <class G>
  __device__ __forceinline__ std::uint64_t sum_over(int begin, int end, G g) {
    std::uint64_t sum = 0;
#pragma unroll 4
    for (int v = begin + lane_; v < end; v += kWarp) sum += g(v);
    for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    return sum;
  }

  // By one warp: every lane adds up a run of neighbours, the runs are added from lane to lane, and the lane that the
  // target falls into looks through its run again.
  template <class G>
  __device__ __forceinline__ Found first_above(int begin, int end, std::uint64_t target, G g) {
    const int run = (end - begin + kWarp - 1) / kWarp;
    const int first = min(end, begin + lane_ * run), last = min(end, first + run);
    std::uint64_t own = 0;
    for (int i = first; i < last; ++i) own += g(i);
    std::uint64_t upto = own;
    for (int step = 1; step < kWarp; step *= 2) {
      const std::uint64_t below = __shfl_up_sync(kAllLanes, upto, step);
      if (lane_ >= step) upto += below;
    }
    const unsigned above = __ballot_sync(kAllLanes, target < upto);
    const int finder = above != 0 ? __ffs(above) - 1 : kWarp - 1;
    Found found{end - 1, 0};
    if (lane_ == finder) {
      found.rest = target - (upto - own);
      for (int i = first; i < last; ++i) {
        const std::uint64_t x = g(i);
        found.index = i;
        if (found.rest < x) break;
        found.rest -= x;
      }
    }
    return {__shfl_sync(kAllLanes, found.index, finder), __shfl_sync(kAllLanes, found.rest, finder)};
  }

 private:
  int lane_, warp_, num_warps_;
};

// Logits in device memory. What filters look at again comes from the copy in shared memory, if the row fits there.
template <class T>
struct DeviceRow {
  const T* logits;
  T* copy;  // null: the row is too long
  int V;
  float inverse_temperature;
  mutable const T* source;
  mutable float highest = 0.0f;

  __device__ __forceinline__ float scaled(int v) const { return static_cast<float>(source[v]) * inverse_temperature; }
  __device__ __forceinline__ float checked(int v) const {
    const T raw = logits[v];
    if (copy != nullptr) copy[v] = raw;
    const float x = static_cast<float>(raw) * inverse_temperature;
    return x <= std::numeric_limits<float>::max() ? x : std::numeric_limits<float>::infinity();
  }
  // the barriers behind the first pass have made the copy visible to all
  __device__ __forceinline__ void prepare(BlockGroup&, float maximum) const {
    highest = maximum;
    if (copy != nullptr) source = copy;
  }
  __device__ __forceinline__ std::uint32_t key(int v) const { return order_key(scaled(v)); }
  __device__ __forceinline__ std::uint64_t weight(int v) const { return fastreason::weight(scaled(v) - highest); }
};

// Layout of the shared memory of a block: 8-byte fields first.
__device__ __forceinline__ SampleMemory divide(unsigned char* shared, int tiles, unsigned char*& rest) {
  SampleMemory memory;
  memory.sum = reinterpret_cast<std::uint64_t*>(shared);
  memory.bins = memory.sum + 1;
  memory.tile_mass = memory.bins + kNumBins;
  memory.found = reinterpret_cast<Found*>(memory.tile_mass + tiles);
  memory.tile_max = reinterpret_cast<float*>(memory.found + 1);
  memory.max_key = reinterpret_cast<std::uint32_t*>(memory.tile_max + tiles);
  rest = reinterpret_cast<unsigned char*>(memory.max_key + 1);
  return memory;
}

std::size_t shared_bytes(int tiles) {
  return 8 + 8 * kNumBins + 8 * static_cast<std::size_t>(tiles) + sizeof(Found) + 4 * static_cast<std::size_t>(tiles) +
         4;
}

template <class T>
__global__ void sampler_kernel(DeviceSampleCall call, bool copies) {
  extern __shared__ __align__(16) unsigned char shared[];
  unsigned char* rest;
  const SampleMemory memory = divide(shared, num_tiles(call.V), rest);
  const std::int64_t n = blockIdx.x;
  const T* logits = static_cast<const T*>(call.logits) + n * call.stride;
  BlockGroup group;
  const DeviceRow<T> row{logits, copies ? reinterpret_cast<T*>(rest) : nullptr, call.V,
                         call.settings.inverse_temperature, logits};
  const float u = uniform_draw(call.seed, call.prompts[n], call.samples[n], call.positions[n]);
  const Drawn drawn = RowSampler<BlockGroup, DeviceRow<T>>{group, row, call.V, memory}(call.settings, u);
  if (threadIdx.x == 0) {
    call.tokens[n] = drawn.token;
    call.logprobs[n] = drawn.logprob;
    call.full_logprobs[n] = drawn.full_logprob;
  }
}

template <class T>
cudaError_t launch(const DeviceSampleCall& call, cudaStream_t stream) {
  int limit = 0;
  // this module has a CUDA runtime of its own, which need not know what torch last set
  cudaError_t error = cudaSetDevice(call.device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, call.device);
  if (error != cudaSuccess) return error;
  const SampleSettings& s = call.settings;
  const bool filtered =
      !s.greedy && (s.top_k > 0 || s.top_p < 1.0 || s.min_log > -std::numeric_limits<float>::infinity());
  const std::size_t fixed = shared_bytes(num_tiles(call.V));
  const std::size_t with_copy = fixed + sizeof(T) * static_cast<std::size_t>(call.V);
  const bool copies = filtered && with_copy <= static_cast<std::size_t>(limit);
  const std::size_t bytes = copies ? with_copy : fixed;
  if (bytes > 48 * 1024) {
    // always the most there is: a smaller number could stand there when another thread's launch needs more
    error = cudaFuncSetAttribute(sampler_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
    if (error != cudaSuccess) return error;
  }
  const int warps = num_tiles(call.V) < 2 ? 2 : num_tiles(call.V) < 16 ? num_tiles(call.V) : 16;
  cudaLaunchConfig_t config{};
  config.gridDim = {static_cast<unsigned>(call.num_rows), 1, 1};
  config.blockDim = {static_cast<unsigned>(warps * kWarp), 1, 1};
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, sampler_kernel<T>, call, copies);
}

}  // namespace

const int kRuntimeVersion = CUDART_VERSION;

int launch_sampler(const DeviceSampleCall& call, void* stream) {
  if (call.num_rows == 0) return cudaSuccess;
  const auto on = static_cast<cudaStream_t>(stream);
  switch (call.type) {
    case LogitType::kFloat32:
      return launch<float>(call, on);
    case LogitType::kFloat16:
      return launch<__half>(call, on);
    case LogitType::kBFloat16:
      return launch<__nv_bfloat16>(call, on);
  }
  return cudaErrorInvalidValue;
}

DeviceStatus device_status() {
  DeviceStatus status{};
  status.error = cudaGetDeviceCount(&status.num_devices);
  if (cudaDriverGetVersion(&status.driver_version) != cudaSuccess) status.driver_version = 0;
  cudaGetLastError();  // no error is left for the next caller to find
  return status;
}

const char* error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace fastreason
