#include "grade/published_reader.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "grade/chain.h"
#include "grade/plain_part.h"
#include "grade/solved_equation.h"

namespace fastreason {

namespace {

constexpr auto kNowhere = std::string_view::npos;

std::size_t letter_index(char c) { return static_cast<std::size_t>(c >= 'a' ? 26 + c - 'a' : c - 'A'); }
std::uint64_t bit_of(char c) { return std::uint64_t{1} << letter_index(c); }

// The body of a step ends where the solving of the equation begins.
std::size_t find_body_end(std::string_view text, std::size_t from, std::size_t limit) {
  const std::string_view body = text.substr(0, limit);
  for (std::size_t at = body.find('W', from); at != kNowhere; at = body.find('W', at + 1))
    if (equation_letter(body, at) != 0) return at;
  return limit;
}

bool has_equality(std::string_view text, std::size_t begin, std::size_t end) {
  return begin < end && text.substr(begin, end - begin).find('=') != kNowhere;
}

}  // namespace

// Letters in expressions: an earlier clause of this step, else the variable of an earlier step.
class PublishedReader::Lookup {
 public:
  Lookup(PublishedReader& reader, int step) : reader_(reader), step_(step) {}

  bool operator()(std::string_view word, Written& found) {
    if (word.size() != 1) return false;
    const Letter& source = reader_.letter(word[0]);
    if (source.clause_step == step_) {
      found = {source.clause_quantity, source.clause_shape};
      parents |= puts_values_in ? 0 : source.clause_parents;
    } else if (source.step >= 0) {
      found = {source.step_quantity, Shape::name(reader_.trace_->steps[static_cast<std::size_t>(source.step)].name)};
      parents |= puts_values_in ? 0 : bit_of(word[0]);
    } else {
      undefined = true;
      found = {Quantity::undefined(), Shape()};
    }
    const Quantity& quantity = found.quantity;
    if (puts_values_in)
      found.shape = quantity.has_form() ? shape_of(quantity) : Shape();
    else
      reader_.operands_.push_back(quantity);
    has_values = has_values && (quantity.has_form() || quantity.value == quantity.value);
    // the latest value of a letter may be that of another step's clause; such texts are read the long way
    return !source.known || source.value == quantity.value;
  }

  bool puts_values_in = false;  // not what the names are made of
  std::uint64_t parents = 0;
  bool undefined = false, has_values = true;

 private:
  PublishedReader& reader_;
  int step_;
};

void PublishedReader::read(std::string_view text, TextEnd end_of_text, NameTable& names, Trace& trace) {
  names_ = &names;
  trace_ = &trace;
  trace.clear();
  trace.answer = read_answer(text, end_of_text);
  reset(text.substr(0, trace.answer.begin));
  StepHeader header, following;
  int name = -1;  // of a plain header, if it is known
  step_.name = -1;
  bool is_plain = find_plain_header(0, header, name);
  bool found = is_plain || find_step_header(text_, 0, header);
  trace.stray = has_equality(text_, 0, found ? header.begin : text_.size());
  for (; found; header = following) {
    if (!is_plain) trace.stray |= has_equality(text_, header.begin, header.name_begin);
    if (name < 0) name = names.intern(is_plain ? header.name : tidy_name(header.name), is_plain);
    begin_step(header, name);
    std::size_t at = header.end;
    is_plain = false;
    name = -1;
    while (!is_plain && read_clause(at)) is_plain = find_plain_header(at, following, name);
    if (is_plain) {
      end_step(at);
      continue;
    }
    found = find_step_header(text_, at, following);
    const std::size_t limit = found ? following.begin : text_.size();
    const std::size_t end = find_body_end(text_, at, limit);
    read_rest(at, end);
    end_step(end);
    const std::size_t behind = read_equation(end, limit);
    trace.stray |= has_equality(text_, behind, limit);
  }
  evaluate_pending();
}

void PublishedReader::reset(std::string_view text) {
  remove_tags(text);
  tidied_.clear();
  tidied_.reserve(text.size());  // views into it must stay valid
  next_removal_ = bytes_removed_ = 0;
  for (; used_letters_ != 0; used_letters_ &= used_letters_ - 1)
    letters_[static_cast<std::size_t>(std::countr_zero(used_letters_))] = {};
  pending_.clear();
}

void PublishedReader::remove_tags(std::string_view text) {
  removals_.clear();
  text_ = text;
  std::size_t at = text.find('<');
  if (at == kNowhere) return;
  untagged_.clear();
  std::size_t kept = 0;
  for (; at != kNowhere; at = text.find('<', at)) {
    const std::size_t size = tag_size(text, at);
    if (size == 0) {
      ++at;
      continue;
    }
    if (kept == 0 && skip_blanks(text, at + size) == text.size()) {
      text_ = text.substr(0, at);  // the usual case: steps, </solution>, answer
      return;
    }
    untagged_.append(text.substr(kept, at - kept));
    removals_.push_back({untagged_.size(), size});
    at += size;
    kept = at;
  }
  untagged_.append(text.substr(kept));
  text_ = untagged_;
}

// Must be called with rising positions.
std::uint32_t PublishedReader::original_offset(std::size_t at) {
  for (; next_removal_ < removals_.size() && removals_[next_removal_].at <= at; ++next_removal_)
    bytes_removed_ += removals_[next_removal_].bytes;
  return static_cast<std::uint32_t>(at + bytes_removed_);
}

// Outer blanks, full stops and semicolons go; inner blanks become one.
std::string_view PublishedReader::tidy_name(std::string_view name) {
  const auto outer = [](char c) { return is_blank(c) || c == '.' || c == ';'; };
  while (!name.empty() && outer(name.front())) name.remove_prefix(1);
  while (!name.empty() && outer(name.back())) name.remove_suffix(1);
  bool tidy = true;
  for (std::size_t i = 1; i < name.size(); ++i)
    tidy &= !is_blank(name[i]) || (name[i] == ' ' && !is_blank(name[i - 1]));
  if (tidy) return name;
  const std::size_t begin = tidied_.size();
  for (const char c : name)
    if (!is_blank(c) || tidied_.back() != ' ') tidied_.push_back(is_blank(c) ? ' ' : c);
  return std::string_view(tidied_).substr(begin);
}

// is_plain_step_header, but for a guess: the name is the one behind that of the step before, as in a gold solution of
// the same order. Then it need be neither read nor looked up.
bool PublishedReader::find_plain_header(std::size_t at, StepHeader& header, int& name) const {
  constexpr std::string_view kBegin = " Define ", kAs = " as ";
  const int expected = step_.name + 1;
  if (expected < names_->size() && names_->is_plain(expected) && text_.substr(at, kBegin.size()) == kBegin) {
    const std::size_t begin = at + kBegin.size();
    const std::string_view wanted = names_->name(expected);
    const std::size_t end = begin + wanted.size(), letter = end + kAs.size();
    if (letter + 1 < text_.size() && text_[letter + 1] == ';' && is_alpha(text_[letter]) &&
        text_.substr(end, kAs.size()) == kAs && text_.substr(begin, wanted.size()) == wanted) {
      header = {at + 1, letter + 2, begin, text_.substr(begin, wanted.size()), text_[letter]};
      name = expected;
      return true;
    }
  }
  return is_plain_step_header(text_, at, header);
}

void PublishedReader::begin_step(const StepHeader& header, int name) {
  step_ = {};
  step_.name = name;
  step_.begin = original_offset(header.begin);
  variable_ = header.letter;
  unknown_ = false;
  num_own_clauses_ = 0;
  parents_ = 0;
  quantity_ = Quantity::undefined();
}

void PublishedReader::end_step(std::size_t end) {
  while (is_blank(text_[end - 1])) --end;  // at the semicolon of its header at the latest
  step_.end = original_offset(end);
  if (unknown_) {  // in reverse problems it stands for the answer
    const Answer& answer = trace_->answer;
    step_.has_value = answer.is_number;
    step_.value = answer.value;
    step_.shape = Shape::unknown().hash();
    quantity_ = Quantity::unknown(answer.is_number ? answer.value : Quantity::kNone);
  }
  step_.unreadable |= num_own_clauses_ + (unknown_ ? 1 : 0) != 1;
  write_parents(parents_);
  Letter& own = letter(variable_);
  own.step = static_cast<int>(trace_->steps.size());
  own.step_quantity = quantity_;
  if (step_.has_value) {
    own.known = true;
    own.value = step_.value;
  } else if (num_own_clauses_ > 0) {
    pending_.emplace_back(own.step, own_text_);
  }
  trace_->steps.push_back(step_);
}

// " so V = A + B = 2 + 3 = 5;" as the format has it, every part of it an expression. False, and nothing done, on
// anything else.
bool PublishedReader::read_clause(std::size_t& at) {
  std::size_t i = skip_blanks(text_, at);
  if (i + 2 < text_.size() && text_[i] == 's' && text_[i + 1] == 'o' && is_blank(text_[i + 2]))
    i = skip_blanks(text_, i + 2);
  Clause clause;
  if (i == text_.size() || !is_alpha(text_[i])) return false;
  clause.target = text_[i];
  i = skip_blanks(text_, i + 1);
  if (i == text_.size() || text_[i] != '=') return false;
  const std::size_t begin = i + 1;
  Lookup lookup(*this, static_cast<int>(trace_->steps.size()));
  operands_.clear();
  Written definition;
  ExpressionReader<Written, Lookup> first(text_, begin, lookup);
  if (!first.read(definition)) return false;
  const std::size_t first_end = first.at();
  const bool has_values = lookup.has_values;
  const bool may_be_plain = has_values && definition.quantity.has_form() && x_is_unknown(definition.quantity);
  lookup.puts_values_in = true;
  std::optional<Chain> chain;
  Written part = definition;
  for (i = first_end; i < text_.size() && text_[i] == '=';) {
    const std::size_t end =
        may_be_plain ? match_plain_part(text_, i + 1, definition.quantity, begin, first_end, operands_) : kNowhere;
    if (end != kNowhere) {
      part.quantity = definition.quantity;
      i = end;
      continue;
    }
    if (!chain) {
      Written values;
      if (!ExpressionReader<Written, Lookup>(text_, begin, lookup).read(values)) return false;
      chain.emplace(values, has_values);
    }
    ExpressionReader<Written, Lookup> reader(text_, i + 1, lookup);
    if (!reader.read(part)) return false;
    clause.slip |= !chain->follows(part);
    i = reader.at();
  }
  if (i < text_.size() && text_[i] != ';' && text_[i] != '.') return false;
  if (part.quantity.value != part.quantity.value) return false;  // such values are read the long way
  clause.has_value = true;
  clause.slip |= has_values && !part.quantity.has_form();
  clause.last = part.quantity;
  clause.shape = definition.shape;
  clause.parents = lookup.parents;
  clause.undefined = lookup.undefined;
  clause.text = text_.substr(begin, i - begin);
  at = std::min(i + 1, text_.size());
  take(clause);
  return true;
}

// Whether an x in a form can be read as the unknown, where `definition` and what it is made of may have one.
bool PublishedReader::x_is_unknown(const Quantity& definition) const {
  const auto has_x = [](const Quantity& a) { return a.slope != 0.0; };
  if (!has_x(definition) && std::none_of(operands_.begin(), operands_.end(), has_x)) return true;
  const Letter& x = letters_[letter_index('x')];
  return x.clause_step != static_cast<int>(trace_->steps.size()) && x.step_quantity.slope == 1.0 &&
         x.step_quantity.constant == 0.0 && (!x.known || x.value == x.step_quantity.value);
}

// The clauses of a body that is not all written as the format has it.
void PublishedReader::read_rest(std::size_t at, std::size_t end) {
  while (at < end) {
    if (read_clause(at)) continue;
    const std::string_view sentence = text_.substr(0, find_full_stop(text_.substr(0, end), at));
    const std::size_t stop = std::min(sentence.find(';', at), sentence.size());
    const std::string_view segment = text_.substr(at, stop - at);
    if (variable_ == 'x' && phrase_end(text_, skip_blanks(text_, at), "we don't know") != kNowhere) unknown_ = true;
    if (const std::size_t equals = segment.find('='); equals != kNowhere) {
      step_.unreadable = true;
      read_loose_clause(segment, equals);
    }
    at = stop + 1;
  }
}

// The first letter that an "=" follows, and all behind it.
void PublishedReader::read_loose_clause(std::string_view segment, std::size_t equals) {
  for (; equals != kNowhere; equals = segment.find('=', equals + 1)) {
    std::size_t behind_target = equals;
    while (behind_target > 0 && is_blank(segment[behind_target - 1])) --behind_target;
    if (behind_target > 0 && is_alpha(segment[behind_target - 1])) {
      Clause clause;
      clause.target = segment[behind_target - 1];
      clause.text = segment.substr(equals + 1);
      if (clause.text.empty()) return;
      // the first part that is not empty
      const std::size_t part = clause.text.find_first_not_of("= \t\n\v\f\r");
      const std::string_view parts = clause.text.substr(std::min(part, clause.text.size()));
      clause.parents = loose_parents(parts.substr(0, parts.find('=')), clause.undefined);
      auto lookup = [&](std::string_view name, Quantity& found) {
        if (name.size() != 1 || !letter(name[0]).known) return false;
        found = Quantity::number(letter(name[0]).value);
        return true;
      };
      clause.has_value = evaluate(clause.text.substr(clause.text.rfind('=') + 1), lookup, clause.last);
      clause.last = clause.has_value ? Quantity::number(clause.last.value) : Quantity::undefined();
      take(clause);
      return;
    }
  }
}

void PublishedReader::take(const Clause& clause) {
  step_.slip |= clause.slip;
  step_.undefined |= clause.undefined;
  Letter& target = letter(clause.target);
  if (clause.target == variable_) {
    ++num_own_clauses_;
    parents_ |= clause.parents;
    own_text_ = clause.text;
    step_.has_value = clause.has_value;
    step_.value = clause.last.value;
    step_.shape = clause.shape.hash();
    quantity_ = clause.last;
  } else {
    target.clause_step = static_cast<int>(trace_->steps.size());
    target.clause_parents = clause.parents;
    target.clause_quantity = clause.last;
    target.clause_shape = clause.shape;
  }
  if (clause.has_value) {
    target.known = true;
    target.value = clause.last.value;
  }
}

// The letters of steps that stand alone in `part`; a letter of an earlier clause of this step stands for its letters.
std::uint64_t PublishedReader::loose_parents(std::string_view part, bool& undefined) const {
  std::uint64_t parents = 0;
  const int step = static_cast<int>(trace_->steps.size());
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (!is_alpha(part[i])) continue;
    const bool alone = (i == 0 || !is_word(part[i - 1])) && (i + 1 == part.size() || !is_word(part[i + 1]));
    if (!alone) continue;
    const Letter& source = letters_[letter_index(part[i])];
    if (source.clause_step == step)
      parents |= source.clause_parents;
    else if (source.step >= 0)
      parents |= bit_of(part[i]);
    else
      undefined = true;
  }
  return parents;
}

void PublishedReader::write_parents(std::uint64_t letters) {
  step_.parents_begin = static_cast<std::uint32_t>(trace_->parents.size());
  for (; letters != 0; letters &= letters - 1) {
    const Letter& source = letters_[static_cast<std::size_t>(std::countr_zero(letters))];
    trace_->parents.push_back(trace_->steps[static_cast<std::size_t>(source.step)].name);
  }
  trace_->finish_parents(step_);
}

// A value that needed variables defined later is found now; the last step first.
void PublishedReader::evaluate_pending() {
  auto lookup = [&](std::string_view name, Quantity& found) {
    if (name.size() != 1 || !letter(name[0]).known) return false;
    found = Quantity::number(letter(name[0]).value);
    return true;
  };
  for (std::size_t i = pending_.size(); i-- > 0;) {
    const auto& [number, text] = pending_[i];
    Step& step = trace_->steps[static_cast<std::size_t>(number)];
    Quantity found;
    step.has_value = evaluate(text.substr(text.rfind('=') + 1), lookup, found);
    step.value = found.value;
  }
}

// Returns where the equation ends, `begin` if there is none or it is not solved as the format has it.
std::size_t PublishedReader::read_equation(std::size_t begin, std::size_t end) {
  const std::string_view text = text_.substr(0, end);
  const char variable = equation_letter(text, begin);
  if (variable == 0) return begin;
  Equation& equation = trace_->equation;
  const bool is_first = !equation.present;
  equation.present = true;
  const Letter& target = letter(variable);
  if (target.step < 0 || !trace_->answer.is_number) return begin;
  const int name = trace_->steps[static_cast<std::size_t>(target.step)].name;
  double told = 0.0;
  const std::size_t size = check_solved_equation(text.substr(begin), target.step_quantity, trace_->answer.value, told);
  const bool is_same = equation.exact && equation.target == name && equation.told == told;
  equation.exact = size > 0 && (is_first || is_same);
  equation.target = name;
  equation.told = told;
  return begin + size;
}

PublishedReader::Letter& PublishedReader::letter(char c) {
  used_letters_ |= bit_of(c);
  return letters_[letter_index(c)];
}

}  // namespace fastreason
