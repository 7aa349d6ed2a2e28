#include "tasks/canonical.h"

#include "common/hash.h"

namespace fastreason {

namespace {

// Tags keep kinds of statement apart; their values are arbitrary and must never change.
enum Tag : std::uint64_t {
  kSum = 1,
  kDifference = 2,
  kTold = 3,
  kExists = 4,
  kForwardQuestion = 5,
  kReverseQuestion = 6
};

std::uint64_t definition_hash(const Theme& theme, const Problem& problem, NodeId node) {
  const Formula& formula = problem.formulas[node];
  std::uint64_t base = 0;
  for (int i = 0; i < problem.parents[node].size(); ++i) {
    const std::uint64_t operand = mix64(theme.name_hash(problem, problem.parents[node][i]));
    base += formula.minus && i == 1 ? combine(operand, kDifference) : operand;
  }
  const std::uint64_t constant = formula.has_constant ? static_cast<std::uint64_t>(formula.constant) + 1 : 0;
  return combine(combine(theme.name_hash(problem, node), kSum),
                 combine(base, constant << 1 | (formula.times ? 1u : 0u)));
}

}  // namespace

std::uint64_t canonical_hash(const Theme& theme, const Problem& problem) {
  std::uint64_t sentences = 0;  // a sum does not depend on the order
  for (const NodeId node : problem.sentences) {
    if (node == kToldSentence) {
      const auto value = static_cast<std::uint64_t>(problem.values[problem.target()]);
      sentences += combine(combine(theme.name_hash(problem, problem.target()), kTold), value);
    } else if (node == problem.unknown) {
      sentences += combine(theme.name_hash(problem, node), kExists);
    } else {
      sentences += definition_hash(theme, problem, node);
    }
  }
  const bool reverse = problem.mode == Mode::kReverse;
  const NodeId asked = reverse ? problem.unknown : problem.target();
  return combine(sentences, combine(theme.name_hash(problem, asked), reverse ? kReverseQuestion : kForwardQuestion));
}

std::uint64_t graph_hash(const Draft& draft) {
  Table<std::uint64_t, kMaxMembers> hashes;  // of a node and all that it follows from
  std::uint64_t nodes = 0;                   // tells a node that is used twice from two that are alike
  for (int i = 0; i < draft.size; ++i) {
    const int member = draft.topo[i];
    const NodeId id = draft.node[member];
    if (id != kNoNode && is_special(id)) {  // another name of its average
      hashes[member] = hashes[nth_member(draft.parts[member], 0)];
      continue;
    }
    std::uint64_t base = 0, form = 0;
    if (draft.is_abstract(member)) {
      for_each_member(draft.parts[member], [&](int part) { base += mix64(hashes[part]); });
    } else {
      const auto& [parents, forced, formula] = draft.instance[member];
      for (int j = 0; j < parents.size(); ++j) {
        const std::uint64_t operand = mix64(hashes[parents[j]]);
        base += formula.minus && j == 1 ? combine(operand, kDifference) : operand;
      }
      form = formula.has_constant ? (formula.times ? 2u : 1u) : 0u;
    }
    const auto type = static_cast<std::uint64_t>(id == kNoNode ? NodeType::kCount : type_of(id));
    hashes[member] = combine(type << 2 | form, base);
    nodes += mix64(hashes[member]);
  }
  return combine(hashes[draft.topo[draft.size - 1]], nodes);
}

}  // namespace fastreason
