#include <algorithm>

#include "grade/expression.h"
#include "grade/reader.h"

namespace fastreason {

void SymbolicReader::read(std::string_view text, NameTable& names, Trace& trace) {
  trace.clear();
  trace.has_answer = find_answer(text, trace.answer);
  step_of_name_.clear();
  std::string_view body = text.substr(0, std::min(text.find('<'), text.find("Answer:")));
  for (std::size_t at = 0; at < body.size();) {
    const std::size_t end = std::min(body.size(), body.find('.', at));
    read_step(body.substr(at, end - at), at, names, trace);
    at = end + 1;
  }
}

// "Be: 2 * Ba = 2 * 3 = 6": one word before the first colon; anything else is no step.
void SymbolicReader::read_step(std::string_view sentence, std::size_t begin, NameTable& names, Trace& trace) {
  const std::size_t colon = sentence.find(':');
  if (colon == std::string_view::npos) return;
  const std::string_view name = trim(sentence.substr(0, colon));
  if (name.empty() || !std::all_of(name.begin(), name.end(), is_alpha)) return;
  const std::string_view parts = sentence.substr(colon + 1);
  const auto known_step = [&](std::string_view word) {
    const int id = names.find(word);
    return id >= 0 && static_cast<std::size_t>(id) < step_of_name_.size() ? step_of_name_[static_cast<std::size_t>(id)]
                                                                          : -1;
  };

  Step step;
  step.begin = static_cast<std::uint32_t>(begin + static_cast<std::size_t>(name.data() - sentence.data()));
  step.end = static_cast<std::uint32_t>(begin + sentence.size());
  step.parents_begin = static_cast<std::uint32_t>(trace.parents.size());
  const std::string_view definition = parts.substr(0, parts.find('='));
  for (std::size_t at = 0; at < definition.size();) {
    std::size_t end = at;
    while (end < definition.size() && is_alpha(definition[end])) ++end;
    if (end > at)
      if (const int source = known_step(definition.substr(at, end - at)); source >= 0)
        trace.parents.push_back(trace.steps[static_cast<std::size_t>(source)].name);
    at = std::max(end, at + 1);
  }
  const auto first = trace.parents.begin() + step.parents_begin;
  std::sort(first, trace.parents.end());
  trace.parents.erase(std::unique(first, trace.parents.end()), trace.parents.end());
  step.parents_end = static_cast<std::uint32_t>(trace.parents.size());

  auto lookup = [&](std::string_view word, double& value) {
    const int source = known_step(word);
    if (source < 0 || !trace.steps[static_cast<std::size_t>(source)].has_value) return false;
    value = trace.steps[static_cast<std::size_t>(source)].value;
    return true;
  };
  const std::size_t last = parts.rfind('=');
  step.has_value =
      ExpressionReader(parts.substr(last == std::string_view::npos ? 0 : last + 1), lookup).evaluate(step.value);
  step.name = names.intern(name);
  if (static_cast<std::size_t>(step.name) >= step_of_name_.size())
    step_of_name_.resize(static_cast<std::size_t>(step.name) + 1, -1);
  step_of_name_[static_cast<std::size_t>(step.name)] = static_cast<int>(trace.steps.size());
  trace.steps.push_back(step);
}

}  // namespace fastreason
