#include "tasks/solution_graph.h"

namespace fastreason {

void append_solution_steps(const Theme& theme, const Problem& problem, std::vector<SolutionStep>& steps,
                           std::vector<std::uint8_t>& parents) {
  const bool published = theme.style() == Style::kPublished;
  const std::size_t first_parent = parents.size();
  Table<std::uint8_t, kNumNodes> step_of_node;
  std::uint8_t count = 0;
  for (const NodeId node : problem.topo) {
    if (published && is_special(node)) {  // it is its average, by another name
      step_of_node[node] = step_of_node[average_of_special(node)];
      continue;
    }
    SolutionStep step = {};
    step.value = problem.values[node];
    step.name = theme.name_piece(problem, node);
    step.parents_begin = static_cast<std::uint32_t>(parents.size() - first_parent);
    step.unknown = node == problem.unknown;
    if (!step.unknown) {
      step.products = published && type_of(node) == NodeType::kAverageTotal;
      if (is_instance(node)) step.formula = problem.formulas[node];
      for (const NodeId parent : problem.parents[node]) parents.push_back(step_of_node[parent]);
      step.num_parents = static_cast<std::uint8_t>(problem.parents[node].size());
    }
    step_of_node[node] = count++;
    steps.push_back(step);
  }
}

}  // namespace fastreason
