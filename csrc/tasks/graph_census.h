// Which nameless graphs (see canonical.h) there are, and which ones a stream holds.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "tasks/beginnings.h"
#include "tasks/stream.h"

namespace fastreason {

// The probability of each graph hash among the accepted problems of `spec`, by going through everything that its
// sampler can draw. Nothing where that is more than `max_paths` attempts. Empty where no problem is accepted.
std::optional<std::unordered_map<std::uint64_t, double>> graph_law(const ProblemSpec& spec, std::int64_t max_paths);

// The graph hashes of problems first, first + step, ..., `count` of them.
std::vector<std::uint64_t> graph_hashes(const TaskStream& stream, std::int64_t first, std::int64_t step,
                                        std::int64_t count, int threads);

}  // namespace fastreason
