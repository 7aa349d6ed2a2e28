#include "tasks/graph_census.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "common/interrupt.h"
#include "common/parallel.h"
#include "tasks/canonical.h"
#include "tasks/choice_tree.h"
#include "tasks/sampler.h"

namespace fastreason {

namespace {

// All that the values of an accepted graph depend on, as bytes: types and parents by their places in topo, and whether
// there is a constant.
std::string skeleton(const Draft& draft) {
  Table<std::uint8_t, kMaxMembers> place;
  std::string bytes;
  const auto add = [&](int value) { bytes.push_back(static_cast<char>(value)); };
  for (int i = 0; i < draft.size; ++i) {
    const int member = draft.topo[i];
    const NodeId id = draft.node[member];
    place[member] = static_cast<std::uint8_t>(i);
    add(id == kNoNode ? 0 : 1 + static_cast<int>(type_of(id)));
    if (draft.is_abstract(member)) {
      if (type_of(id) == NodeType::kAverageTotal)
        draft.for_each_product(member, [&](int count, int special) { add(place[count]), add(place[special]); });
      else
        for_each_member(draft.parts[member], [&](int part) { add(place[part]); });
    } else {
      const Draft::Instance& instance = draft.instance[member];
      for (const int parent : instance.parents) add(place[parent]);
      add(instance.formula.has_constant ? kMaxMembers + 1 : kMaxMembers);
    }
    add(kMaxMembers + 2);
  }
  return bytes;
}

struct Skeleton {
  Draft draft;
  double probability = 0.0;
};

}  // namespace

std::optional<std::unordered_map<std::uint64_t, double>> graph_law(const ProblemSpec& spec, std::int64_t max_paths) {
  std::unordered_map<std::uint64_t, double> law;
  const Beginnings beginnings(spec);
  if (beginnings.empty()) return law;
  InterruptionCounter next_attempt;
  std::unordered_map<std::string, Skeleton> skeletons;
  ProblemSampler sampler;
  std::int64_t paths = 0;
  for (ChoiceTree tree; tree.begins(); tree.next()) {
    next_attempt();
    if (++paths > max_paths) return std::nullopt;
    if (!sampler.attempt_graph(spec, beginnings, tree)) continue;
    Skeleton& found = skeletons.try_emplace(skeleton(sampler.draft()), Skeleton{sampler.draft()}).first->second;
    found.probability += tree.probability();
  }
  double accepted = 0.0;
  for (const auto& [name, found] : skeletons) {
    sampler.restore(found.draft);  // once: numbers are drawn anew, whatever was drawn before
    for (ChoiceTree tree; tree.begins(); tree.next()) {
      next_attempt();
      if (++paths > max_paths) return std::nullopt;
      if (!sampler.assign_values(tree)) continue;
      const double probability = found.probability * tree.probability();
      law[graph_hash(sampler.draft())] += probability;
      accepted += probability;
    }
  }
  for (auto& [hash, probability] : law) probability /= accepted;
  return law;
}

std::vector<std::uint64_t> graph_hashes(const TaskStream& stream, std::int64_t first, std::int64_t step,
                                        std::int64_t count, int threads) {
  if (count > 0 && count - 1 > (std::numeric_limits<std::int64_t>::max() - first) / step)
    throw std::invalid_argument("problem " + std::to_string(first) + " is the first and " + std::to_string(step) +
                                " the step of more problems than end at 2**63 - 1: " + std::to_string(count));
  std::vector<std::uint64_t> hashes(static_cast<std::size_t>(count));
  parallel_blocks(count, threads, 64, [&](std::int64_t begin, std::int64_t end) {
    Sample sample;
    for (std::int64_t i = begin; i < end; ++i) {
      stream.generate(static_cast<std::uint64_t>(first + i * step), sample);
      hashes[static_cast<std::size_t>(i)] = sample.graph;
    }
  });
  return hashes;
}

}  // namespace fastreason
