// The published wire format: sentences of words, steps of clauses with one letter a variable.
#pragma once

#include <algorithm>

#include "tasks/letters.h"
#include "tasks/problem.h"
#include "tasks/theme.h"

namespace fastreason {

// slope * x + constant; slope 0 in forward problems and before the unknown.
struct Linear {
  std::int64_t slope = 0, constant = 0;
};

template <class Sink>
class PublishedWriter {
 public:
  PublishedWriter(const Theme& theme, const Problem& problem, Sink& sink)
      : theme_(theme), problem_(problem), sink_(sink) {}

  // --- problem and question ---------------------------------------------------------------------------------------

  void problem() {
    const auto own = static_cast<std::uint32_t>(problem_.sentences.size());
    if (problem_.padding.empty()) {
      for (const NodeId node : problem_.sentences) sentence(node);
    } else {
      for (const std::uint32_t i : problem_.padding.order)
        i < own ? sentence(problem_.sentences[static_cast<int>(i)])
                : padding_sentence(problem_.padding.sentences[i - own]);
    }
  }

  void question() {
    const NodeId asked = problem_.mode == Mode::kReverse ? problem_.unknown : problem_.target();
    if (type_of(asked) == NodeType::kCount) {
      sink_.piece(kHowMany);
      sink_.piece(theme_.kind_piece(problem_.kind_name(asked)));
      sink_.piece(kDoes);
      sink_.piece(theme_.place_piece(problem_.place_names[place_of(asked)]));
      sink_.piece(kHave);
    } else {
      sink_.piece(kWhatIs);
      name(asked);
    }
    sink_.piece(kQuestionMark);
  }

  // --- solution ---------------------------------------------------------------------------------------------------

  void body(const Letters& letters) {
    letters_ = &letters;
    if (problem_.mode == Mode::kReverse) sink_.piece(kReversePreamble);
    for (const NodeId node : problem_.topo)
      if (!is_special(node)) step(node);
    if (problem_.mode == Mode::kReverse) tail();
  }

 private:
  struct Variable {
    int piece = 0;
    Linear value;
  };

  void name(NodeId node) { sink_.piece(theme_.name_piece(problem_, node)); }

  void sentence(NodeId node) {
    if (node == kToldSentence) {
      subject(problem_.target());
      sink_.piece(kEquals);
      sink_.integer(problem_.values[problem_.target()]);
    } else if (node == problem_.unknown) {
      subject(node);
      sink_.piece(type_of(node) == NodeType::kCount ? kExistsCount : kExistsAverage);
    } else {
      subject(node);
      sink_.piece(kEquals);
      sentence_expression(node);
    }
    sink_.piece(kDot);
  }

  void padding_sentence(const PaddingSentence& padding) {
    sink_.piece(padding.average ? kThe : kTheNumberOf);
    if (padding.average) sink_.piece(theme_.padding_average_piece());
    sink_.piece(theme_.padding_kind_piece(padding.kind));
    sink_.piece(theme_.padding_in_piece());
    sink_.piece(theme_.padding_place_piece(padding.place));
    sink_.piece(kEquals);
    if (padding.num_operands == 2) sink_.piece(padding.minus ? kTheDifferenceBetween : kTheSumOf);
    for (int i = 0; i < padding.num_operands; ++i) {
      if (i > 0) sink_.piece(kAnd);
      const auto& [place, node] = padding.operands[i];
      if (node != kNoNode) {
        reference(node);
      } else {
        sink_.piece(kRefThe);
        sink_.piece(theme_.padding_total_piece(problem_.depth));
        sink_.piece(theme_.padding_place_piece(place));
      }
    }
    sink_.piece(kDot);
  }

  void subject(NodeId node) {
    sink_.piece(type_of(node) == NodeType::kCount ? kTheNumberOf : kThe);
    name(node);
  }

  void reference(NodeId node) {
    sink_.piece(type_of(node) == NodeType::kCount ? kRefTheNumberOf : kRefThe);
    name(node);
  }

  void sentence_expression(NodeId node) {
    const Formula& formula = problem_.formulas[node];
    const ParentList& parents = problem_.parents[node];
    if (formula.has_constant) {
      sink_.integer(formula.constant);
      if (parents.empty()) return;
      sink_.piece(formula.times ? kTimes : kPlus);
    }
    if (parents.size() > 1) sink_.piece(formula.minus ? kTheDifferenceBetween : kTheSumOf);
    for (int i = 0; i < parents.size(); ++i) {
      if (i > 0 && parents.size() > 2) sink_.piece(kComma);
      if (i > 0 && i + 1 == parents.size()) sink_.piece(kAnd);
      reference(parents[i]);
    }
  }

  // "Define NAME as V; W = ...; so V = ... ." The letter of the last clause is written before the clauses.
  void step(NodeId node) {
    sink_.piece(kDefine);
    name(node);
    if (node == problem_.unknown) {
      sink_.piece(kUnknownStep);
      variables_[node] = {kUnknown, {1, 0}};
      return;
    }
    const Formula formula = is_instance(node) ? problem_.formulas[node] : Formula{};
    const ParentList& parents = problem_.parents[node];
    const bool products = type_of(node) == NodeType::kAverageTotal;
    const int num_terms = products ? parents.size() / 2 : parents.size();
    clauses_left_ = count_variables(problem_, node);
    says_so_ = !(products && num_terms > 1);  // the original leaves "so" out there
    sink_.piece(kAs);
    sink_.piece(letter(next_letter_ + clauses_left_ - 1));

    Variable result;
    if (num_terms == 0) {
      result = begin_clause();
      result.value.constant = formula.constant;
      sink_.integer(formula.constant);
    } else {
      result = products ? sum_of_products(parents) : sum_of(parents, formula.minus);
      if (formula.has_constant) result = with_constant(formula, result);
    }
    variables_[node] = result;
    sink_.piece(kDot);
  }

  Variable sum_of(const ParentList& parents, bool minus) {
    const Variable first = variable(parents[0]);
    if (parents.size() > 1) return fold(first, parents.size(), minus, [&](int i) { return variable(parents[i]); });
    Variable result = begin_clause();
    result.value = first.value;
    sink_.piece(first.piece);
    sink_.piece(kAssign);
    value(result.value);
    return result;
  }

  Variable sum_of_products(const ParentList& parents) {
    SmallVector<Variable, kMaxKinds> products;
    for (int i = 0; i < parents.size(); i += 2) {
      const Variable count = variable(parents[i]), average = variable(parents[i + 1]);
      Variable product = begin_clause();
      product.value = {count.value.slope * average.value.constant + count.value.constant * average.value.slope,
                       count.value.constant * average.value.constant};
      binary(count, kMultiply, average, product.value);
      products.push_back(product);
    }
    return fold(products[0], products.size(), false, [&](int i) { return products[i]; });
  }

  // ((first + term 1) + term 2) + ..., one clause an addition
  template <class Term>
  Variable fold(Variable sum, int num_terms, bool minus, Term&& term) {
    for (int i = 1; i < num_terms; ++i) {
      const Variable right = term(i);
      const int sign = minus ? -1 : 1;
      Variable next = begin_clause();
      next.value = {sum.value.slope + sign * right.value.slope, sum.value.constant + sign * right.value.constant};
      binary(sum, minus ? kSubtract : kAdd, right, next.value);
      sum = next;
    }
    return sum;
  }

  Variable with_constant(const Formula& formula, const Variable& base) {
    const std::int64_t k = formula.constant;
    Variable result = begin_clause();
    result.value = formula.times ? Linear{k * base.value.slope, k * base.value.constant}
                                 : Linear{base.value.slope, k + base.value.constant};
    sink_.integer(k);
    sink_.piece(formula.times ? kMultiply : kAdd);
    sink_.piece(base.piece);
    operands({0, k}, formula.times ? kMultiply : kAdd, base.value, result.value);
    return result;
  }

  void binary(const Variable& left, Piece sign, const Variable& right, const Linear& result) {
    sink_.piece(left.piece);
    sink_.piece(sign);
    sink_.piece(right.piece);
    operands(left.value, sign, right.value, result);
  }

  // " = 2 + 3 = 5"; in reverse mode the operands of - and * stand in parentheses
  void operands(const Linear& left, Piece sign, const Linear& right, const Linear& result) {
    const bool grouped = problem_.mode == Mode::kReverse && sign != kAdd;
    sink_.piece(kAssign);
    operand(left, grouped);
    sink_.piece(sign);
    operand(right, grouped);
    sink_.piece(kAssign);
    value(result);
  }

  void operand(const Linear& linear, bool grouped) {
    if (!grouped) return value(linear);
    sink_.piece(kOpenParenthesis);
    value(linear, /*bare=*/true);
    sink_.piece(kCloseParenthesis);
  }

  // "; so V ="
  Variable begin_clause() {
    sink_.piece(kSemicolon);
    if (--clauses_left_ == 0 && says_so_) sink_.piece(kSo);
    Variable variable;
    variable.piece = letter(next_letter_++);
    sink_.piece(variable.piece);
    sink_.piece(kAssign);
    return variable;
  }

  int letter(int index) const { return theme_.letter_piece(letters_->order[index]); }

  Variable variable(NodeId node) const { return variables_[is_special(node) ? average_of_special(node) : node]; }

  // "2*x + 3", "x", "3 - 2*x" (a positive constant comes before a negative slope), "-4"; bare: without leading blank
  void value(const Linear& linear, bool bare = false) {
    const auto [slope, constant] = linear;
    if (slope == 0) {
      bare ? sink_.bare_integer(constant) : sink_.integer(constant);
    } else if (slope < 0 && constant > 0) {
      bare ? sink_.bare_integer(constant) : sink_.integer(constant);
      sink_.piece(kSubtract);
      multiple_of_x(-slope, /*bare=*/false);
    } else {
      multiple_of_x(slope, bare);
      if (constant == 0) return;
      sink_.piece(constant > 0 ? kAdd : kSubtract);
      sink_.integer(constant > 0 ? constant : -constant);
    }
  }

  void multiple_of_x(std::int64_t slope, bool bare) {
    if (slope == 1) return sink_.piece(bare ? kBareUnknown : kUnknown);
    if (slope == -1) {
      sink_.piece(bare ? kBareMinus : kSubtract);
      return sink_.piece(kBareUnknown);
    }
    explicit_multiple_of_x(slope, bare);
  }

  void explicit_multiple_of_x(std::int64_t slope, bool bare) {
    bare ? sink_.bare_integer(slope) : sink_.integer(slope);
    sink_.piece(kBareTimes);
    sink_.piece(kBareUnknown);
  }

  void tail() {
    const Variable target = variable(problem_.target());
    const Linear left = target.value;
    const std::int64_t told = problem_.values[problem_.target()];
    const auto equation = [&](const Linear& linear, std::int64_t right) {
      value(linear);
      sink_.piece(kAssign);
      sink_.integer(right);
    };
    sink_.piece(kWeKnow);
    sink_.piece(target.piece);
    sink_.piece(kAssign);
    sink_.integer(told);
    sink_.piece(kSoWeHave);
    equation(left, told);
    sink_.piece(kSolveIt);
    equation(left, told);
    sink_.piece(kMoveTerms);
    equation({left.slope, left.constant - told}, 0);
    sink_.piece(kIsolate);
    explicit_multiple_of_x(left.slope, /*bare=*/false);
    sink_.piece(kAssign);
    sink_.integer(told - left.constant);
    sink_.piece(kDivideBoth);
    sink_.integer(left.slope);
    sink_.piece(kColon);
    sink_.piece(kUnknown);
    sink_.piece(kAssign);
    sink_.integer(told - left.constant);
    sink_.piece(kDivide);
    sink_.integer(left.slope);
    sink_.piece(kSolutionX);
    sink_.integer(problem_.answer());
    sink_.piece(kDot);
  }

  const Theme& theme_;
  const Problem& problem_;
  Sink& sink_;
  const Letters* letters_ = nullptr;
  int next_letter_ = 0;
  int clauses_left_ = 0;
  bool says_so_ = true;
  Table<Variable, kNumNodes> variables_;
};

}  // namespace fastreason
