#include <algorithm>
#include <bit>

#include "grade/expression.h"
#include "grade/reader.h"

namespace fastreason {

namespace {

constexpr std::array<std::string_view, 6> kTags = {"<question>",  "</question>", "<solution>",
                                                   "</solution>", "<answer>",    "</answer>"};
constexpr std::string_view kDefine = "define";
constexpr auto kNowhere = std::string_view::npos;

std::size_t letter_index(char c) { return static_cast<std::size_t>(c >= 'a' ? 26 + c - 'a' : c - 'A'); }

bool is_word(char c) { return is_alpha(c) || is_digit(c) || c == '_'; }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// "define" in any case, as the beginning of a word
std::size_t find_define(std::string_view text, std::size_t from) {
  for (std::size_t at = from; at + kDefine.size() <= text.size(); ++at) {
    if (lower(text[at]) != 'd' || (at > 0 && is_alpha(text[at - 1]))) continue;
    std::size_t i = 1;
    while (i < kDefine.size() && lower(text[at + i]) == kDefine[i]) ++i;
    if (i == kDefine.size()) return at;
  }
  return kNowhere;
}

bool is_as_or_a(std::string_view word) {
  return (word.size() == 1 && lower(word[0]) == 'a') ||
         (word.size() == 2 && lower(word[0]) == 'a' && lower(word[1]) == 's');
}

bool has_text(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return !is_blank(c); });
}

// Walks back from `end` over words of letters alone. The earliest "as" or "a" among them that has a name between it and
// `name_from` is where the name ends.
std::size_t find_name_end(std::string_view text, std::size_t name_from, std::size_t end) {
  std::size_t name_end = kNowhere;
  while (true) {
    while (end > name_from && is_blank(text[end - 1])) --end;
    std::size_t begin = end;
    while (begin > name_from && is_alpha(text[begin - 1])) --begin;
    if (begin == end || begin == name_from || !is_blank(text[begin - 1])) return name_end;
    if (is_as_or_a(text.substr(begin, end - begin)) && has_text(text.substr(name_from, begin - name_from)))
      name_end = begin;
    end = begin;
  }
}

// The body of a step ends where the answer or the solving of the equation begins.
std::size_t find_tail(std::string_view body) {
  std::size_t end = std::min(body.size(), body.find("Answer:"));
  for (std::size_t at = body.find("We know "); at < end; at = body.find("We know ", at + 1)) {
    const std::string_view rest = body.substr(at + 8);
    if (rest.size() >= 3 && is_alpha(rest[0]) && rest[1] == ' ' && rest[2] == '=') end = at;
  }
  return end;
}

}  // namespace

void PublishedReader::read(std::string_view text, NameTable& names, Trace& trace) {
  trace.clear();
  trace.has_answer = find_answer(text, trace.answer);
  reset(text);
  Header header, following;
  for (bool found = next_header(0, header); found; header = following) {
    found = next_header(header.end, following);
    const std::size_t limit = found ? following.begin : text_.size();
    const std::size_t end = header.end + find_tail(text_.substr(header.end, limit - header.end));
    read_step(header, end, names, trace);
  }
  // a value that needed variables defined later is found now; the last step first
  for (std::size_t i = trace.steps.size(); i-- > 0;) {
    Step& step = trace.steps[i];
    if (!step.has_value && !own_expression_[i].empty()) step.has_value = value_of(own_expression_[i], step.value);
  }
}

void PublishedReader::reset(std::string_view text) {
  remove_tags(text);
  tidied_.clear();
  tidied_.reserve(text.size());  // views into it must stay valid
  next_removal_ = 0;
  bytes_removed_ = 0;
  letters_.fill({});
  own_expression_.clear();
}

void PublishedReader::remove_tags(std::string_view text) {
  removals_.clear();
  text_ = text;
  std::size_t at = text.find('<');
  if (at == kNowhere) return;
  untagged_.clear();
  std::size_t kept = 0;
  for (; at != kNowhere; at = text.find('<', at)) {
    const auto tag =
        std::find_if(kTags.begin(), kTags.end(), [&](std::string_view t) { return text.substr(at, t.size()) == t; });
    if (tag == kTags.end()) {
      ++at;
      continue;
    }
    untagged_.append(text.substr(kept, at - kept));
    removals_.push_back({untagged_.size(), tag->size()});
    at += tag->size();
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

// A header is "Define", the shortest possible name, "as" or "a", any alphabetic words, one letter and a semicolon.
bool PublishedReader::next_header(std::size_t from, Header& header) const {
  const std::size_t first = find_define(text_, from);
  if (first == kNowhere) return false;
  const std::size_t name_from = first + kDefine.size();
  for (std::size_t semicolon = text_.find(';', name_from); semicolon != kNowhere;
       semicolon = text_.find(';', semicolon + 1)) {
    std::size_t at = semicolon;
    while (at > name_from && is_blank(text_[at - 1])) --at;
    if (at < name_from + 2 || !is_alpha(text_[at - 1]) || !is_blank(text_[at - 2])) continue;
    const std::size_t name_end = find_name_end(text_, name_from, at - 1);
    if (name_end == kNowhere) continue;
    // a header without variable is swallowed: the name is what follows the last "Define"
    std::size_t name_begin = name_from;
    const std::string_view before = text_.substr(0, name_end);
    for (std::size_t again = find_define(before, name_from); again != kNowhere; again = find_define(before, again + 1))
      name_begin = again + kDefine.size();
    header = {first, semicolon + 1, text_.substr(name_begin, name_end - name_begin), text_[at - 1]};
    return true;
  }
  return false;
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

void PublishedReader::read_step(const Header& header, std::size_t end, NameTable& names, Trace& trace) {
  Step step;
  step.name = names.intern(tidy_name(header.name));
  step.begin = original_offset(header.begin);
  step.end = original_offset(end);
  const auto number = static_cast<int>(trace.steps.size());
  const std::string_view body = text_.substr(header.end, end - header.end);
  own_expression_.emplace_back();
  std::uint64_t parents = 0;

  std::size_t at = 0;
  for (std::size_t equals = body.find('='); equals != kNowhere; equals = body.find('=', at)) {
    std::size_t behind_target = equals;
    while (behind_target > at && is_blank(body[behind_target - 1])) --behind_target;
    if (behind_target == at || !is_alpha(body[behind_target - 1])) {
      at = equals + 1;
      continue;
    }
    at = std::min(body.size(), body.find_first_of(".;", equals));
    const char target = body[behind_target - 1];
    const std::string_view expression = body.substr(equals + 1, at - equals - 1);
    const std::uint64_t sources = parents_in(expression.substr(0, expression.find('=')), number);
    double value = 0.0;
    const bool has_value = value_of(expression, value);
    if (target == header.letter) {
      parents |= sources;
      own_expression_.back() = expression;
      step.has_value = has_value;
      step.value = value;
    } else {
      letter(target).clause_step = number;
      letter(target).clause_parents = sources;
    }
    if (has_value) {
      letter(target).known = true;
      letter(target).value = value;
    }
  }
  if (header.letter == 'x' && trace.has_answer && body.find("we don't know") != kNowhere) {
    // reverse problems: the unknown stands for the answer
    step.has_value = letter('x').known = true;
    step.value = letter('x').value = trace.answer;
  }
  write_parents(parents, trace, step);
  letter(header.letter).step = number;
  trace.steps.push_back(step);
}

// The letters of steps that stand alone in `part`; a letter of an earlier clause of this step stands for its letters.
std::uint64_t PublishedReader::parents_in(std::string_view part, int step) const {
  std::uint64_t parents = 0;
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (!is_alpha(part[i])) continue;
    const bool alone = (i == 0 || !is_word(part[i - 1])) && (i + 1 == part.size() || !is_word(part[i + 1]));
    if (!alone) continue;
    const Letter& source = letter(part[i]);
    if (source.clause_step == step)
      parents |= source.clause_parents;
    else if (source.step >= 0)
      parents |= std::uint64_t{1} << letter_index(part[i]);
  }
  return parents;
}

void PublishedReader::write_parents(std::uint64_t letters, Trace& trace, Step& step) const {
  step.parents_begin = static_cast<std::uint32_t>(trace.parents.size());
  for (; letters != 0; letters &= letters - 1) {
    const Letter& source = letters_[static_cast<std::size_t>(std::countr_zero(letters))];
    trace.parents.push_back(trace.steps[static_cast<std::size_t>(source.step)].name);
  }
  const auto begin = trace.parents.begin() + step.parents_begin;
  std::sort(begin, trace.parents.end());
  trace.parents.erase(std::unique(begin, trace.parents.end()), trace.parents.end());
  step.parents_end = static_cast<std::uint32_t>(trace.parents.size());
}

// What stands behind the last "=", computed from the values known so far; failing that, the last number written.
bool PublishedReader::value_of(std::string_view expression, double& value) const {
  const std::string_view last = expression.substr(expression.rfind('=') + 1);
  auto lookup = [&](std::string_view name, double& known) {
    if (name.size() != 1 || !letter(name[0]).known) return false;
    known = letter(name[0]).value;
    return true;
  };
  return ExpressionReader(last, lookup).evaluate(value) || last_number(expression, value);
}

PublishedReader::Letter& PublishedReader::letter(char c) { return letters_[letter_index(c)]; }
const PublishedReader::Letter& PublishedReader::letter(char c) const { return letters_[letter_index(c)]; }

}  // namespace fastreason
