// csrc/cuda/sampler.cu on a CPU, for tests/cuda/test_cuda_kernel.py.
#include "cuda/sampler.cu"

namespace fastreason {
namespace {
alignas(16) unsigned char shared[256 * 1024];
}  // namespace
}  // namespace fastreason

// order and shared_limit: of the emulation; the rest as fastreason._cuda.sample takes it
extern "C" int emulated_sample(int order, int shared_limit, const void* logits, int type, std::int64_t num_rows, int V,
                               std::int64_t stride, std::uint64_t seed, const std::int64_t* prompts,
                               const std::int64_t* samples, const std::int64_t* positions, double temperature,
                               int top_k, double top_p, double min_p, std::int64_t* tokens, float* logprobs,
                               float* full_logprobs) {
  using namespace fastreason;
  emulation::order = order;
  emulation::shared_limit = shared_limit;
  std::memset(shared, 0xAB, sizeof(shared));  // shared memory starts with anything
  const SampleSettings settings = sample_settings(temperature, top_k, top_p, min_p, V);
  return launch_sampler({0, logits, static_cast<LogitType>(type), num_rows, V, stride, seed, prompts, samples,
                         positions, settings, tokens, logprobs, full_logprobs},
                        nullptr);
}
