// Draws a token from one row of logits. The same code runs on a CPU core and on a CUDA block: a Group gives it loops,
// sums and shared memory, a Row gives it the logits.
//
// A row is cut into tiles of kTile tokens. Whatever a Group adds up are integers, so the order does not matter, and
// both give the same token. The first pass finds maximum and mass of each tile; the draw then looks for the tile and
// for the token inside it. Filters need the maximum of the row first and pass over it again.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "sample/settings.h"
#include "sample/weights.h"

namespace fastreason {

inline constexpr int kTile = 512;
inline constexpr int kNumBins = 256;

FASTREASON_INLINE constexpr int num_tiles(int V) { return (V + kTile - 1) / kTile; }

struct Drawn {
  std::int64_t token;  // -1: no distribution
  float logprob, full_logprob;
};

// An index, and what of a target lies inside it.
struct Found {
  int index;
  std::uint64_t rest;
};

// Memory that all workers of a group share; one per row that is being worked on.
struct SampleMemory {
  float* tile_max;           // [tiles]
  std::uint64_t* tile_mass;  // [tiles]
  std::uint64_t* bins;       // [kNumBins]
  std::uint64_t* sum;
  std::uint32_t* max_key;
  Found* found;
};

// Which tokens the filters leave: those above a key, and of those at the key the ones up to a token id.
struct Kept {
  std::uint32_t key = 0;
  int last = 0;
  FASTREASON_INLINE bool operator()(std::uint32_t of, int v) const { return (of > key) | ((of == key) & (v <= last)); }
};

template <class Group, class Row>
struct RowSampler {
  Group& group;
  const Row& row;
  const int V;
  const SampleMemory memory;

  FASTREASON_INLINE int begin(int tile) const { return tile * kTile; }
  FASTREASON_INLINE int end(int tile) const { return begin(tile) + kTile < V ? begin(tile) + kTile : V; }

  // Sum of measure(v) over all tokens, and in tile_mass those of the tiles.
  template <class Measure>
  FASTREASON_INLINE std::uint64_t sum_tiles(Measure measure) const {
    group.lead([&]() FASTREASON_LAMBDA { *memory.sum = 0; });
    group.sync();
    group.each_tile(num_tiles(V), [&](int tile) FASTREASON_LAMBDA {
      const std::uint64_t mass = group.sum_over(begin(tile), end(tile), measure);
      group.lead_of_tile([&]() FASTREASON_LAMBDA {
        memory.tile_mass[tile] = mass;
        group.add(memory.sum, mass);
      });
    });
    return group.read(memory.sum);
  }

  // The token at which the sum of measure(v), in order of v, exceeds the target; after sum_tiles(measure).
  template <class Measure>
  FASTREASON_INLINE Found find_token(std::uint64_t target, Measure measure) const {
    group.one_worker([&]() FASTREASON_LAMBDA {
      const Found tile =
          group.first_above(0, num_tiles(V), target, [&](int b) FASTREASON_LAMBDA { return memory.tile_mass[b]; });
      const Found token = group.first_above(begin(tile.index), end(tile.index), tile.rest, measure);
      group.lead_of_tile([&]() FASTREASON_LAMBDA { *memory.found = token; });
    });
    return group.read(memory.found);
  }

  // The fewest tokens of `kept`, highest logits first, whose measure reaches `needed` >= 1: a search for the key of the
  // last one, eight bits at a time, then for the last one that has that key.
  template <class Measure>
  FASTREASON_INLINE Kept narrow(Kept kept, std::uint64_t needed, Measure measure) const {
    std::uint32_t key = 0, mask = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
      group.each(kNumBins, [&](int bin) FASTREASON_LAMBDA { memory.bins[bin] = 0; });
      group.each(V, [&](int v) FASTREASON_LAMBDA {
        const std::uint32_t own = row.key(v);
        if ((own & mask) == key && kept(own, v)) group.add(&memory.bins[255 - (own >> shift & 255u)], measure(v));
      });
      group.one_worker([&]() FASTREASON_LAMBDA {
        const Found bin =
            group.first_above(0, kNumBins, needed - 1, [&](int i) FASTREASON_LAMBDA { return memory.bins[i]; });
        group.lead_of_tile([&]() FASTREASON_LAMBDA { *memory.found = bin; });
      });
      const Found bin = group.read(memory.found);
      key |= (255u - static_cast<std::uint32_t>(bin.index)) << shift;
      mask |= 255u << shift;
      needed = bin.rest + 1;
    }
    const auto tied = [&](int v) FASTREASON_LAMBDA {
      const std::uint64_t amount = measure(v);
      return (row.key(v) == key) & kept(key, v) ? amount : 0;
    };
    sum_tiles(tied);
    return {key, find_token(needed - 1, tied).index};
  }

  // Maximum and mass of each tile, relative to the tile's own maximum; the maximum of the row.
  FASTREASON_INLINE float read_row() const {
    group.lead([&]() FASTREASON_LAMBDA { *memory.max_key = 0; });
    group.sync();
    group.each_tile(num_tiles(V), [&](int tile) FASTREASON_LAMBDA {
      const float highest =
          group.max_over(begin(tile), end(tile), [&](int v) FASTREASON_LAMBDA { return row.checked(v); });
      const float reference = highest > -std::numeric_limits<float>::infinity() ? highest : 0.0f;
      const std::uint64_t mass = group.sum_over(
          begin(tile), end(tile), [&](int v) FASTREASON_LAMBDA { return weight(row.scaled(v) - reference); });
      group.lead_of_tile([&]() FASTREASON_LAMBDA {
        memory.tile_max[tile] = highest;
        memory.tile_mass[tile] = mass;
        group.raise(memory.max_key, order_key(highest));
      });
    });
    return from_order_key(group.read(memory.max_key));
  }

  FASTREASON_INLINE float tile_scale(int tile, float highest) const {
    return exp_nonpositive(memory.tile_max[tile] - highest);
  }

  // Mass of the row, relative to its maximum.
  FASTREASON_INLINE std::uint64_t row_mass(float highest) const {
    group.lead([&]() FASTREASON_LAMBDA { *memory.sum = 0; });
    group.sync();
    group.each(num_tiles(V), [&](int tile) FASTREASON_LAMBDA {
      group.add(memory.sum, scaled_mass(memory.tile_mass[tile], tile_scale(tile, highest)));
    });
    return group.read(memory.sum);
  }

  FASTREASON_INLINE int draw_plain(float highest, std::uint64_t mass, float u) const {
    group.one_worker([&]() FASTREASON_LAMBDA {
      const Found tile = group.first_above(0, num_tiles(V), draw_target(u, mass), [&](int b) FASTREASON_LAMBDA {
        return scaled_mass(memory.tile_mass[b], tile_scale(b, highest));
      });
      const float reference = memory.tile_max[tile.index];
      const std::uint64_t target =
          unscaled_target(tile.rest, tile_scale(tile.index, highest), memory.tile_mass[tile.index]);
      const Found token = group.first_above(begin(tile.index), end(tile.index), target,
                                            [&](int v) FASTREASON_LAMBDA { return weight(row.scaled(v) - reference); });
      group.lead_of_tile([&]() FASTREASON_LAMBDA { *memory.found = token; });
    });
    return group.read(memory.found).index;
  }

  FASTREASON_INLINE int most_likely(float highest) const {
    group.one_worker([&]() FASTREASON_LAMBDA {
      const Found tile = group.first_above(0, num_tiles(V), 0, [&](int b) FASTREASON_LAMBDA {
        return static_cast<std::uint64_t>(memory.tile_max[b] == highest);
      });
      const Found token = group.first_above(begin(tile.index), end(tile.index), 0, [&](int v) FASTREASON_LAMBDA {
        return static_cast<std::uint64_t>(row.scaled(v) == highest);
      });
      group.lead_of_tile([&]() FASTREASON_LAMBDA { *memory.found = token; });
    });
    return group.read(memory.found).index;
  }

  // The token, and in `mass` that of what the filters leave.
  FASTREASON_INLINE int draw_filtered(const SampleSettings& settings, float highest, float u,
                                      std::uint64_t& mass) const {
    row.prepare(group, highest);
    Kept kept;  // all: no key is 0
    if (settings.top_k > 0)
      kept = narrow(kept, static_cast<std::uint64_t>(settings.top_k),
                    [](int) FASTREASON_LAMBDA { return std::uint64_t{1}; });
    const auto weight_of = [&](int v) FASTREASON_LAMBDA { return row.weight(v); };
    if (settings.top_p < 1.0) {
      const std::uint64_t whole = sum_tiles([&](int v) FASTREASON_LAMBDA {
        const std::uint64_t amount = row.weight(v);
        return kept(row.key(v), v) ? amount : 0;
      });
      kept = narrow(kept, needed_mass(settings.top_p, whole), weight_of);
    }
    const auto measure = [&](int v) FASTREASON_LAMBDA {
      const std::uint64_t amount = row.weight(v);
      return kept(row.key(v), v) & (row.scaled(v) - highest >= settings.min_log) ? amount : 0;
    };
    mass = sum_tiles(measure);
    return find_token(draw_target(u, mass), measure).index;
  }

  FASTREASON_INLINE Drawn operator()(const SampleSettings& settings, float u) const {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
    const float highest = read_row();
    if (!(highest > -kInfinity && highest < kInfinity)) return {-1, kNan, kNan};
    const std::uint64_t mass = row_mass(highest);
    if (settings.greedy) return {most_likely(highest), 0.0f, log_probability(0.0f, mass)};
    const bool filtered = settings.top_k > 0 || settings.top_p < 1.0 || settings.min_log > -kInfinity;
    std::uint64_t kept_mass = mass;
    const int token = filtered ? draw_filtered(settings, highest, u, kept_mass) : draw_plain(highest, mass, u);
    const float below = row.scaled(token) - highest;
    return {token, log_probability(below, kept_mass), log_probability(below, mass)};
  }
};

}  // namespace fastreason
