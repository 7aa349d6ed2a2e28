// The compact trace style for small models: a quantity is one word, a step is one chain of equalities.
//
//   problem   Ba: 3. Ca: 1 + Ba. Be: 2 * ( Ba + Ca ).        question   Be ?
//   step      Be: 2 * ( Ba + Ca ) = 2 * ( 3 + 4 ) = 2 * 7 = 14.
//
// A step repeats the quantity's definition, puts in the numbers, and carries out one operation a part, innermost first,
// then from the left; so no intermediate number is negative in a forward problem.
#pragma once

#include "tasks/theme.h"

namespace fastreason {

template <class Sink>
class SymbolicWriter {
 public:
  SymbolicWriter(const Theme& theme, const Problem& problem, Sink& sink)
      : theme_(theme), problem_(problem), sink_(sink) {}

  void problem() {
    for (const NodeId node : problem_.sentences) {
      sink_.piece(theme_.subject_piece(problem_, node));
      definition(node);
      sink_.piece(kDot);
    }
  }

  void question() {
    name(problem_.target());
    sink_.piece(kSpacedQuestionMark);
  }

  void body() {
    for (const NodeId node : problem_.topo) step(node);
  }

 private:
  void name(NodeId node) { sink_.piece(theme_.name_piece(problem_, node)); }

  // factor * ( item + item - item ): the factor only if it is not 0, the minus only before the last item.
  template <class Item>
  void expression(std::int64_t factor, int num_items, bool minus, Item&& item) {
    const bool grouped = factor != 0 && num_items > 1;
    if (factor != 0) {
      sink_.integer(factor);
      sink_.piece(kMultiply);
    }
    if (grouped) sink_.piece(kOpenParenthesis);
    for (int i = 0; i < num_items; ++i) {
      if (i > 0) sink_.piece(minus && i + 1 == num_items ? kSubtract : kAdd);
      item(i);
    }
    if (grouped) sink_.piece(kCloseParenthesis);
  }

  // The quantity in terms of others: what its sentence states and its step repeats.
  void definition(NodeId node) {
    const ParentList& parents = problem_.parents[node];
    const Formula formula = formula_of(node);
    const int added = formula.has_constant && !formula.times ? 1 : 0;
    expression(formula.times ? formula.constant : 0, parents.size() + added, formula.minus, [&](int i) {
      if (i < added)
        sink_.integer(formula.constant);
      else
        name(parents[i - added]);
    });
  }

  void step(NodeId node) {
    sink_.piece(theme_.subject_piece(problem_, node));
    definition(node);
    if (!problem_.parents[node].empty()) evaluation(node);
    sink_.piece(kDot);
  }

  void evaluation(NodeId node) {
    const Formula formula = formula_of(node);
    const std::int64_t factor = formula.times ? formula.constant : 0;
    SmallVector<std::int64_t, 2 * kMaxKinds + 1> terms;
    if (formula.has_constant && !formula.times) terms.push_back(formula.constant);
    for (const NodeId parent : problem_.parents[node]) terms.push_back(problem_.values[parent]);
    const auto write = [&] {
      sink_.piece(kAssign);
      expression(factor, terms.size(), formula.minus && terms.size() > 1, [&](int i) { sink_.integer(terms[i]); });
    };
    write();
    while (terms.size() > (factor != 0 ? 1 : 2)) {
      terms[0] += formula.minus && terms.size() == 2 ? -terms[1] : terms[1];
      terms.erase(1);
      write();
    }
    if (factor != 0 || terms.size() > 1) {
      sink_.piece(kAssign);
      sink_.integer(problem_.values[node]);
    }
  }

  Formula formula_of(NodeId node) const { return is_instance(node) ? problem_.formulas[node] : Formula{}; }

  const Theme& theme_;
  const Problem& problem_;
  Sink& sink_;
};

}  // namespace fastreason
