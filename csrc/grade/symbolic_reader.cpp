#include "grade/symbolic_reader.h"

#include <algorithm>
#include <optional>

#include "grade/chain.h"
#include "grade/plain_part.h"

namespace fastreason {

namespace {

constexpr auto kNowhere = std::string_view::npos;

}  // namespace

// Words in expressions: the quantities of earlier steps.
class SymbolicReader::Lookup {
 public:
  explicit Lookup(SymbolicReader& reader) : reader_(reader) {}

  bool operator()(std::string_view word, Written& found) {
    const Step* source = reader_.step_of(word);
    undefined |= source == nullptr;
    const bool has_value = source != nullptr && source->has_value;
    has_values = has_values && has_value;
    found.quantity = has_value ? Quantity::number(source->value) : Quantity::undefined();
    if (puts_values_in) {
      found.shape = has_value ? shape_of(found.quantity) : Shape();
    } else {
      found.shape = source != nullptr ? Shape::name(source->name) : Shape();
      if (source != nullptr) reader_.trace_->parents.push_back(source->name);
      reader_.operands_.push_back(found.quantity);
    }
    return true;
  }

  bool puts_values_in = false;  // not what the names are made of
  bool undefined = false, has_values = true;

 private:
  SymbolicReader& reader_;
};

void SymbolicReader::read(std::string_view text, TextEnd end, NameTable& names, Trace& trace) {
  names_ = &names;
  trace_ = &trace;
  trace.clear();
  trace.answer = read_answer(text, end);
  step_of_name_.clear();
  const std::string_view body = text.substr(0, trace.answer.begin);
  std::size_t from = 0;
  for (std::size_t at = body.find('<'); at != kNowhere; at = body.find('<', at + 1)) {
    const std::size_t size = tag_size(body, at);
    if (size == 0) continue;
    read_sentences(body.substr(0, at), from);
    from = at + size;
  }
  read_sentences(body, from);
}

// The sentences from `at` to the end of `body`.
void SymbolicReader::read_sentences(std::string_view body, std::size_t at) {
  while (at < body.size()) {
    if (read_step(body, at)) continue;
    const std::size_t end = find_full_stop(body, at);
    read_loose_step(body, at, end);
    at = end + 1;
  }
}

// Whether `part` is the part `before` with some of its first terms added up.
bool SymbolicReader::is_reduced(std::string_view before, std::string_view part) {
  return reduction_before_.read(before) && reduction_.read(part) && reduction_.follows(reduction_before_);
}

// " Be: 2 * Ba = 2 * 3 = 6." as the format has it. False, and nothing done, on anything else.
bool SymbolicReader::read_step(std::string_view body, std::size_t& at) {
  const std::size_t begin = skip_blanks(body, at);
  std::size_t i = begin;
  while (i < body.size() && is_alpha(body[i])) ++i;
  const std::string_view name = body.substr(begin, i - begin);
  if (name.empty() || i == body.size() || body[i] != ':') return false;

  const std::size_t num_parents = trace_->parents.size();
  Lookup lookup(*this);
  const auto fail = [&] {
    trace_->parents.resize(num_parents);
    return false;
  };
  operands_.clear();
  Written definition;
  ExpressionReader<Written, Lookup> first(body, i + 1, lookup);
  if (!first.read(definition)) return fail();
  const std::size_t definition_begin = i + 1, definition_end = first.at();
  const bool has_values = lookup.has_values;
  lookup.puts_values_in = true;
  std::optional<Chain> chain;
  Written part = definition;
  Step step;
  for (std::size_t before = i = definition_end; i < body.size() && body[i] == '=';) {
    const std::size_t begin_of_part = i + 1;
    const std::size_t plain_end =
        has_values && definition.quantity.has_form()
            ? match_plain_part(body, begin_of_part, definition.quantity, definition_begin, definition_end, operands_)
            : kNowhere;
    if (plain_end != kNowhere) {
      part.quantity = definition.quantity;
      i = plain_end;
    } else {
      if (!chain) {
        Written values;
        if (!ExpressionReader<Written, Lookup>(body, definition_begin, lookup).read(values)) return fail();
        chain.emplace(values, has_values);
      }
      ExpressionReader<Written, Lookup> reader(body, begin_of_part, lookup);
      if (!reader.read(part)) return fail();
      i = reader.at();
      const std::string_view text = body.substr(begin_of_part, i - begin_of_part);
      step.slip |= !chain->follows(part, is_reduced(body.substr(before, begin_of_part - 1 - before), text));
    }
    before = begin_of_part;
  }
  if ((i < body.size() && body[i] != '.') || part.quantity.value != part.quantity.value) return fail();
  step.begin = static_cast<std::uint32_t>(begin);
  step.end = static_cast<std::uint32_t>(i);
  step.parents_begin = static_cast<std::uint32_t>(num_parents);
  step.undefined = lookup.undefined;
  step.slip |= has_values && !part.quantity.has_form();
  step.has_value = true;
  step.value = part.quantity.value;
  step.shape = definition.shape.hash();
  add_step(step, name);
  at = i + 1;
  return true;
}

// One word before the first colon of a sentence makes a step of it, whatever follows; all else is no step.
void SymbolicReader::read_loose_step(std::string_view body, std::size_t at, std::size_t end) {
  const std::string_view sentence = body.substr(at, end - at);
  const std::size_t colon = sentence.find(':');
  const std::string_view name = trim(sentence.substr(0, colon));
  if (colon == kNowhere || name.empty() || !std::all_of(name.begin(), name.end(), is_alpha)) {
    trace_->stray |= sentence.find_first_of(":=") != std::string_view::npos;
    return;
  }
  Step step;
  step.unreadable = true;
  step.begin = static_cast<std::uint32_t>(name.data() - body.data());
  step.end = static_cast<std::uint32_t>(end);
  step.parents_begin = static_cast<std::uint32_t>(trace_->parents.size());
  const std::string_view parts = sentence.substr(colon + 1);
  const std::string_view definition = parts.substr(0, parts.find('='));
  for (std::size_t i = 0; i < definition.size();) {
    std::size_t word_end = i;
    while (word_end < definition.size() && is_alpha(definition[word_end])) ++word_end;
    if (word_end > i) {
      const Step* source = step_of(definition.substr(i, word_end - i));
      if (source != nullptr) trace_->parents.push_back(source->name);
      step.undefined |= source == nullptr;
    }
    i = std::max(word_end, i + 1);
  }
  auto lookup = [&](std::string_view word, Quantity& found) {
    const Step* source = step_of(word);
    if (source == nullptr || !source->has_value) return false;
    found = Quantity::number(source->value);
    return true;
  };
  const std::size_t last = parts.rfind('=');
  Quantity value;
  step.has_value = evaluate(parts.substr(last == std::string_view::npos ? 0 : last + 1), lookup, value);
  step.value = value.value;
  add_step(step, name);
}

void SymbolicReader::add_step(Step& step, std::string_view name) {
  trace_->finish_parents(step);
  step.name = names_->intern(name);
  const auto id = static_cast<std::size_t>(step.name);
  if (id >= step_of_name_.size()) step_of_name_.resize(id + 1, -1);
  step_of_name_[id] = static_cast<int>(trace_->steps.size());
  trace_->steps.push_back(step);
}

const Step* SymbolicReader::step_of(std::string_view name) const {
  const int id = names_->find(name);
  if (id < 0 || static_cast<std::size_t>(id) >= step_of_name_.size()) return nullptr;
  const int step = step_of_name_[static_cast<std::size_t>(id)];
  return step < 0 ? nullptr : &trace_->steps[static_cast<std::size_t>(step)];
}

}  // namespace fastreason
