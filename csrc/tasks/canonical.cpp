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

namespace {

using Hashes = Table<std::uint64_t, kMaxMembers>;  // by member

// The type of a member, regardless of its parents.
std::uint64_t sort_of(const Draft& draft, int member) {
  const NodeId id = draft.node[member];
  const auto type = static_cast<std::uint64_t>(id == kNoNode ? NodeType::kCount : type_of(id));
  const Formula& formula = draft.instance[member].formula;
  return type << 2 | (!draft.is_abstract(member) && formula.has_constant ? (formula.times ? 2u : 1u) : 0u);
}

bool is_alias(const Draft& draft, int member) {
  return draft.node[member] != kNoNode && is_special(draft.node[member]);
}

// Calls body(operand, role) for each quantity that a member follows from; `role` tells apart how, and of a product
// depends on the other factor.
template <class Body>
void for_each_operand(const Draft& draft, int member, const Hashes& hashes, Body&& body) {
  if (!draft.is_abstract(member)) {
    const auto& [parents, forced, formula] = draft.instance[member];
    for (int j = 0; j < parents.size(); ++j) body(parents[j], formula.minus && j == 1 ? kDifference : kSum);
  } else if (type_of(draft.node[member]) == NodeType::kAverageTotal) {
    draft.for_each_product(member, [&](int count, int average) {
      body(count, hashes[average]);
      body(average, hashes[count]);
    });
  } else {
    for_each_member(draft.parts[member], [&](int part) { body(part, kSum); });
  }
}

}  // namespace

// Colour refinement: down from the leaves, up from the target, and down again. The first pass takes alike what has the
// same history, the second sees that one of them is used elsewhere, the third carries this on.
std::uint64_t graph_hash(const Draft& draft) {
  Hashes hashes, label, used;
  const auto down = [&] {
    for (int i = 0; i < draft.size; ++i) {
      const int member = draft.topo[i];
      if (is_alias(draft, member)) {
        hashes[member] = hashes[nth_member(draft.parts[member], 0)];
        continue;
      }
      std::uint64_t base = 0;
      for_each_operand(draft, member, hashes,
                       [&](int operand, std::uint64_t role) { base += mix64(combine(hashes[operand], role)); });
      hashes[member] = combine(label[member], base);
    }
  };
  for (int member = 0; member < draft.size; ++member) {
    label[member] = sort_of(draft, member);
    used[member] = 0;
  }
  down();
  for (int i = draft.size - 1; i >= 0; --i) {
    const int member = draft.topo[i];
    if (is_alias(draft, member)) {
      used[nth_member(draft.parts[member], 0)] += used[member];
      continue;
    }
    label[member] = combine(hashes[member], used[member]);
    for_each_operand(draft, member, hashes,
                     [&](int operand, std::uint64_t role) { used[operand] += mix64(combine(label[member], role)); });
  }
  down();
  std::uint64_t nodes = 0;
  for (int member = 0; member < draft.size; ++member)
    if (!is_alias(draft, member)) nodes += mix64(hashes[member]);
  return combine(hashes[draft.topo[draft.size - 1]], nodes);
}

}  // namespace fastreason
