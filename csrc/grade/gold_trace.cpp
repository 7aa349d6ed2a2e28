#include "grade/gold_trace.h"

namespace fastreason {

namespace {

// What a step is made of; `name_of(i)` is the shape of its i-th parent.
template <class NameOf>
Shape definition_of(const SolutionStep& step, NameOf&& name_of) {
  const Formula& formula = step.formula;
  const Shape constant = shape_of(Quantity::number(formula.constant));
  if (step.num_parents == 0) return constant;
  Shape base = step.products ? name_of(0) * name_of(1) : name_of(0);
  for (int i = step.products ? 2 : 1; i < step.num_parents; i += step.products ? 2 : 1) {
    const Shape term = step.products ? name_of(i) * name_of(i + 1) : name_of(i);
    const bool is_last = i + 1 == step.num_parents;
    base = formula.minus && is_last ? base - term : base + term;
  }
  if (!formula.has_constant) return base;
  return formula.times ? constant * base : constant + base;
}

}  // namespace

void build_gold_trace(const SolutionGraph& solution, const Theme& theme, NameTable& names, Trace& trace) {
  trace.clear();
  for (const SolutionStep& source : solution.steps) {
    const std::uint8_t* parents = solution.parents + source.parents_begin;
    const auto name_of = [&](int i) { return trace.steps[parents[i]].name; };
    Step step;
    // a piece begins with a blank; no name of a theme has a word of the grammar in it
    step.name = names.intern(theme.piece(source.name).substr(1), theme.style() == Style::kPublished);
    step.has_value = true;
    step.value = static_cast<double>(source.value);
    step.shape = source.unknown ? Shape::unknown().hash()
                                : definition_of(source, [&](int i) { return Shape::name(name_of(i)); }).hash();
    step.parents_begin = static_cast<std::uint32_t>(trace.parents.size());
    for (int i = 0; i < source.num_parents; ++i) trace.parents.push_back(name_of(i));
    trace.finish_parents(step);
    trace.steps.push_back(step);
  }
  trace.answer.ending = Ending::kClosed;
  trace.answer.is_number = true;
  trace.answer.value = static_cast<double>(solution.answer);
  if (solution.mode == Mode::kReverse) trace.equation = {true, true, trace.steps.back().name, trace.steps.back().value};
}

}  // namespace fastreason
