#include "grade/symbolic_reader.h"

#include <algorithm>

#include "grade/chain.h"
#include "grade/reduction.h"

namespace fastreason {

namespace {

constexpr auto kNowhere = std::string_view::npos;

}  // namespace

// Words in expressions: the quantities of earlier steps. Their names become parents in the definition alone.
class SymbolicReader::Lookup {
 public:
  explicit Lookup(SymbolicReader& reader) : reader_(reader) {}

  bool operator()(std::string_view word, Definition& found) {
    const Step* source = reader_.step_of(word);
    if (source != nullptr) reader_.trace_->parents.push_back(source->name);
    found = {value_of(source), source != nullptr ? Shape::name(source->name) : Shape()};
    return true;
  }
  bool operator()(std::string_view word, Printed& found) {
    found = value_of(reader_.step_of(word));
    return true;
  }

  bool undefined = false, has_values = true;

 private:
  Printed value_of(const Step* source) {
    undefined |= source == nullptr;
    if (source != nullptr && source->has_value) return Printed::value(Quantity::number(source->value));
    has_values = false;
    return {Quantity::undefined(), Shape()};
  }

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
    const std::size_t end = std::min(body.size(), find_stop(body, at, "."));
    read_loose_step(body, at, end);
    at = end + 1;
  }
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
  Definition definition;
  ExpressionReader<Definition, Lookup> first(body, i + 1, lookup);
  if (!first.read(definition)) return fail();
  Chain chain(definition.printed, lookup.has_values);
  Printed last = definition.printed;
  Step step;
  Reduction previous, reduction;
  for (i = first.at(); i < body.size() && body[i] == '=';) {
    ExpressionReader<Printed, Lookup> part(body, i + 1, lookup);
    if (!part.read(last)) return fail();
    const bool has_terms = reduction.read(body.substr(i + 1, part.at() - i - 1));
    step.slip |= !chain.follows(last, has_terms && reduction.follows(previous));
    std::swap(previous, reduction);
    i = part.at();
  }
  if ((i < body.size() && body[i] != '.') || last.quantity.value != last.quantity.value) return fail();
  step.begin = static_cast<std::uint32_t>(begin);
  step.end = static_cast<std::uint32_t>(i);
  step.parents_begin = static_cast<std::uint32_t>(num_parents);
  step.undefined = lookup.undefined;
  step.slip |= lookup.has_values && !last.quantity.has_form();
  step.has_value = true;
  step.value = last.quantity.value;
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
