#include "sample/sample.h"

#include <vector>

#include "common/parallel.h"
#include "common/philox.h"

namespace fastreason {

namespace {

// One core does all the work of a row; loops are written so that the compiler makes vector code of them.
class CoreGroup {
 public:
  template <class F>
  FASTREASON_INLINE void each_tile(int n, F f) {
    for (int tile = 0; tile < n; ++tile) f(tile);
  }
  template <class F>
  FASTREASON_INLINE void each(int n, F f) {
    for (int i = 0; i < n; ++i) f(i);
  }
  template <class F>
  FASTREASON_INLINE void one_worker(F f) {
    f();
  }
  template <class F>
  FASTREASON_INLINE void lead(F f) {
    f();
  }
  template <class F>
  FASTREASON_INLINE void lead_of_tile(F f) {
    f();
  }
  FASTREASON_INLINE void sync() {}
  template <class T>
  FASTREASON_INLINE T read(const T* from) {
    return *from;
  }
  FASTREASON_INLINE void add(std::uint64_t* to, std::uint64_t x) { *to += x; }
  FASTREASON_INLINE void raise(std::uint32_t* to, std::uint32_t x) { *to = x > *to ? x : *to; }

  // Maxima of kLanes columns: a single running maximum would wait for itself.
  template <class G>
  FASTREASON_INLINE float max_over(int begin, int end, G g) {
    constexpr int kLanes = 32;
    float lanes[kLanes];
    for (float& lane : lanes) lane = -std::numeric_limits<float>::infinity();
    int v = begin;
    for (; v + kLanes <= end; v += kLanes)
      for (int i = 0; i < kLanes; ++i) {
        const float x = g(v + i);
        lanes[i] = x > lanes[i] ? x : lanes[i];
      }
    for (; v < end; ++v) {
      const float x = g(v);
      lanes[0] = x > lanes[0] ? x : lanes[0];
    }
    for (int i = 1; i < kLanes; ++i) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
    return lanes[0];
  }

  template <class G>
  FASTREASON_INLINE std::uint64_t sum_over(int begin, int end, G g) {
    std::uint64_t sum = 0;
    for (int v = begin; v < end; ++v) sum += g(v);
    return sum;
  }

  // Chunks first, so that most of the numbers are computed by vector code.
  template <class G>
  FASTREASON_INLINE Found first_above(int begin, int end, std::uint64_t target, G g) {
    constexpr int kChunk = 64;
    std::uint64_t chunk[kChunk];
    for (; begin + kChunk < end; begin += kChunk) {
      std::uint64_t sum = 0;
      for (int i = 0; i < kChunk; ++i) {
        chunk[i] = g(begin + i);
        sum += chunk[i];
      }
      if (target < sum) return {begin + first_in(chunk, kChunk, target), target};
      target -= sum;
    }
    const int rest = end - begin;
    for (int i = 0; i < rest; ++i) chunk[i] = g(begin + i);
    const int found = first_in(chunk, rest, target);
    return {begin + found, target};
  }

 private:
  static FASTREASON_INLINE int first_in(const std::uint64_t* chunk, int n, std::uint64_t& target) {
    int i = 0;
    for (; i + 1 < n && target >= chunk[i]; ++i) target -= chunk[i];
    return i;
  }
};

// A row of float32 in memory. Filters look at weights and keys several times, so these are written down once.
struct MemoryRow {
  const float* logits;
  int V;
  float inverse_temperature;
  std::uint64_t* weights;
  std::uint32_t* keys;

  FASTREASON_INLINE float scaled(int v) const { return logits[v] * inverse_temperature; }
  // infinity for NaN
  FASTREASON_INLINE float checked(int v) const {
    const float x = scaled(v);
    return x <= std::numeric_limits<float>::max() ? x : std::numeric_limits<float>::infinity();
  }
  FASTREASON_INLINE void prepare(CoreGroup&, float highest) const {
    for (int v = 0; v < V; ++v) weights[v] = fastreason::weight(scaled(v) - highest);
    for (int v = 0; v < V; ++v) keys[v] = order_key(scaled(v));
  }
  FASTREASON_INLINE std::uint32_t key(int v) const { return keys[v]; }
  FASTREASON_INLINE std::uint64_t weight(int v) const { return weights[v]; }
};

struct Batch {
  const float* logits;
  int V;
  std::int64_t stride;
  SampleSettings settings;
  DrawKeys keys;
  SampleOutput out;
};

FASTREASON_INLINE void sample_range(const Batch& batch, std::int64_t first, std::int64_t last) {
  const auto tiles = static_cast<std::size_t>(num_tiles(batch.V)), V = static_cast<std::size_t>(batch.V);
  std::vector<float> tile_max(tiles);
  std::vector<std::uint64_t> tile_mass(tiles), bins(kNumBins), weights(V);
  std::vector<std::uint32_t> keys(V);
  std::uint64_t sum;
  std::uint32_t max_key;
  Found found;
  CoreGroup group;
  const SampleMemory memory{tile_max.data(), tile_mass.data(), bins.data(), &sum, &max_key, &found};
  for (std::int64_t n = first; n < last; ++n) {
    const MemoryRow row{batch.logits + n * batch.stride, batch.V, batch.settings.inverse_temperature, weights.data(),
                        keys.data()};
    const float u =
        uniform_draw(batch.keys.seed, batch.keys.prompts[n], batch.keys.samples[n], batch.keys.positions[n]);
    const Drawn drawn = RowSampler<CoreGroup, MemoryRow>{group, row, batch.V, memory}(batch.settings, u);
    batch.out.tokens[n] = drawn.token;
    batch.out.logprobs[n] = drawn.logprob;
    batch.out.full_logprobs[n] = drawn.full_logprob;
  }
}

using SampleRange = void (*)(const Batch&, std::int64_t, std::int64_t);

void sample_range_baseline(const Batch& batch, std::int64_t first, std::int64_t last) {
  sample_range(batch, first, last);
}

#if defined(__x86_64__)
// Wider registers, the same operations: fused multiply-add stays out, so the bits are those of the baseline.
__attribute__((target("avx2"))) void sample_range_avx2(const Batch& batch, std::int64_t first, std::int64_t last) {
  sample_range(batch, first, last);
}

SampleRange best_sample_range() { return __builtin_cpu_supports("avx2") ? &sample_range_avx2 : &sample_range_baseline; }
#else
SampleRange best_sample_range() { return &sample_range_baseline; }
#endif

}  // namespace

void sample_rows(const float* logits, std::int64_t num_rows, int V, std::int64_t stride, const SampleSettings& settings,
                 const DrawKeys& keys, const SampleOutput& out, int threads) {
  const Batch batch{logits, V, stride, settings, keys, out};
  const SampleRange range = best_sample_range();
  // a thread is worth starting for some 100 us of work
  const std::int64_t grain = 1 + (1 << 17) / V;
  parallel_blocks(num_rows, threads, grain, [&](std::int64_t first, std::int64_t last) { range(batch, first, last); });
}

}  // namespace fastreason
