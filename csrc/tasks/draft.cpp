#include "tasks/draft.h"

#include <algorithm>

namespace fastreason {

bool Draft::target_is_linear() const {
  Table<std::int64_t, kMaxMembers> slope;
  for (int i = 0; i < size; ++i) {
    const int member = topo[i];
    std::int64_t a = member == unknown ? 1 : 0;
    if (!is_abstract(member)) {
      const auto& [parents, forced, formula] = instance[member];
      for (const int parent : parents) a += slope[parent];
      if (formula.minus) a -= 2 * slope[parents[1]];
      if (formula.has_constant && formula.times) a *= formula.constant;
    } else if (type_of(node[member]) == NodeType::kAverageTotal) {
      bool square = false;
      for_each_product(member, [&](int count, int average) {
        square |= slope[count] != 0 && slope[average] != 0;
        a += slope[count] * value[average] + slope[average] * value[count];
      });
      if (square) return false;
    } else {
      for_each_member(parts[member], [&](int part) { a += slope[part]; });
    }
    slope[member] = a;
  }
  return slope[topo[size - 1]] != 0;
}

OpRange reachable_ops(int size, int num_instances, int num_abstracts, int num_specials, int abstract_edges,
                      bool extendable) {
  OpRange range;
  for (int instances = num_instances; instances <= num_instances + (extendable ? 1 : 0); ++instances) {
    // an instance at position i of topo has an in-degree of at most 1, 1, 2, 3, 3, ...; the j-th stands at j or later
    int most = abstract_edges;
    for (int j = 0; j < instances; ++j) most += std::min(3, std::max(1, j + num_abstracts));
    if (most < size) continue;
    // An instance of in-degree c counts 1 .. c + 1, and at least c where no special and its average can fall into one;
    // the in-degrees of all sum to s, or to what the abstracts and at most one edge per instance make.
    const int grown = size - abstract_edges;
    const int counted = abstract_edges - num_specials;
    const int low = counted + (num_specials == 0 ? std::max(instances, grown) : instances);
    const int high = counted + instances + std::max(instances, grown);
    range = range.low > range.high ? OpRange{low, high} : OpRange{std::min(range.low, low), std::max(range.high, high)};
  }
  return range;
}

}  // namespace fastreason
